import { describe, expect, test } from "vitest";
import type { Point } from "../api/types";
import { heatColour, hue } from "./colour";
import { crossesItself, fitted, insertionIndex, inward, middle, toShares } from "./geometry";
import { heatPixels } from "./heat";

describe("geometry", () => {
  test("a picture lies in the middle of its canvas, as large as possible", () => {
    expect(fitted([200, 100], [400, 400])).toEqual({ scale: 2, x: 0, y: 100 });
    expect(fitted([100, 200], [400, 400])).toEqual({ scale: 2, x: 100, y: 0 });
  });

  test("points become shares by their unit", () => {
    const frame: [number, number] = [200, 100];
    expect(toShares([[50, 50]], "pixel", frame)).toEqual([[0.25, 0.5]]);
    expect(toShares([[0.5, 1]], "auto", frame)).toEqual([[0.5, 1]]);
    expect(toShares([[0.5, 50]], "auto", frame)).toEqual([[0.0025, 0.5]]);
    expect(toShares([[0.5, 1]], "metre", frame)).toBeNull();
  });

  test("in is from the left hand to the right hand along the line", () => {
    // To the right in the picture: the right hand is below.
    const right = inward([
      [0, 0],
      [10, 0],
    ]);
    expect(right?.at).toEqual([5, 0]);
    expect(right?.towards[0]).toBeCloseTo(0);
    expect(right?.towards[1]).toBe(1);
    // Downwards: the right hand is on the picture's left.
    expect(
      inward([
        [0, 0],
        [0, 10],
      ])?.towards,
    ).toEqual([-1, 0]);
    // In the middle of the length, not of the points.
    expect(
      inward([
        [0, 0],
        [2, 0],
        [10, 0],
      ])?.at,
    ).toEqual([5, 0]);
    expect(
      inward([
        [1, 1],
        [1, 1],
      ]),
    ).toBeNull();
    expect(inward([[1, 1]])).toBeNull();
  });

  test("a polygon that crosses itself is found", () => {
    const square: Point[] = [
      [0, 0],
      [1, 0],
      [1, 1],
      [0, 1],
    ];
    expect(crossesItself(square)).toBe(false);
    expect(
      crossesItself([
        [0, 0],
        [1, 1],
        [1, 0],
        [0, 1],
      ]),
    ).toBe(true);
    expect(crossesItself(square.slice(0, 3))).toBe(false);
  });

  test("a point is inserted where it lengthens the shape least", () => {
    const line: Point[] = [
      [0, 0],
      [1, 0],
      [1, 1],
    ];
    expect(insertionIndex(line, [1, 0.5], false)).toBe(2);
    expect(insertionIndex(line, [0.5, 0.5], true)).toBe(3);
    expect(insertionIndex([], [0.5, 0.5], true)).toBe(0);
    expect(middle(line)[0]).toBeCloseTo(2 / 3);
  });
});

describe("colours", () => {
  test("of neighbouring tracks are far apart", () => {
    for (let id = 1; id < 200; id++) {
      const apart = Math.abs(hue(id) - hue(id + 1));
      expect(Math.min(apart, 360 - apart)).toBeGreaterThan(100);
    }
  });

  test("of the heat map go from transparent to red", () => {
    expect(heatColour(0)[3]).toBe(0);
    expect(heatColour(1)).toEqual([255, 40, 20, 215]);
    expect(heatColour(7)).toEqual(heatColour(1));
  });

  test("a cell is a pixel; empty cells are transparent", () => {
    const pixels = heatPixels([
      [0, 4],
      [1, 0],
    ]);
    expect(pixels).toHaveLength(16);
    expect([...pixels.slice(0, 4)]).toEqual([0, 0, 0, 0]);
    expect([...pixels.slice(4, 8)]).toEqual(heatColour(1));
    expect([...pixels.slice(8, 12)]).toEqual(heatColour(0.5));
    expect(heatPixels([])).toHaveLength(0);
    expect(heatPixels([[0]])[3]).toBe(0);
  });
});
