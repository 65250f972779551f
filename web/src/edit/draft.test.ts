import { describe, expect, test } from "vitest";
import type { Point } from "../api/types";
import { begin, type Draws, MOST_POINTS, type Step, step } from "./draft";

const run = (draws: Draws, ...steps: Step[]) => steps.reduce(step, draws);
const SQUARE: Point[] = [
  [0.1, 0.1],
  [0.5, 0.1],
  [0.5, 0.5],
  [0.1, 0.5],
];

describe("points", () => {
  test("are appended, selected and kept inside the frame", () => {
    const { present } = run(
      begin([]),
      { do: "append", at: [0.25, 0.3] },
      { do: "append", at: [1.2, -0.1] },
    );
    expect(present.points).toEqual([
      [0.25, 0.3],
      [1, 0],
    ]);
    expect(present.selected).toBe(1);
  });

  test("are inserted into the nearest edge", () => {
    const { present } = run(begin(SQUARE), { do: "insert", at: [0.1, 0.3], closed: true });
    expect(present.points).toEqual([...SQUARE, [0.1, 0.3]]);
    const right = run(begin(SQUARE), { do: "insert", at: [0.52, 0.3], closed: true });
    expect(right.present.points[2]).toEqual([0.52, 0.3]);
  });

  test("are added by the keyboard half way to the next one, or in the middle", () => {
    const first = run(begin([]), { do: "split", closed: true });
    expect(first.present.points).toEqual([[0.5, 0.5]]);
    const second = run(first, { do: "split", closed: true });
    expect(second.present.points).toHaveLength(2);
    const within = run(begin(SQUARE), { do: "select", index: 0 }, { do: "split", closed: true });
    expect(within.present.points[1]).toEqual([0.3, 0.1]);
    // A line goes on behind its last point.
    const line = run(
      begin([
        [0.2, 0.2],
        [0.4, 0.2],
      ]),
      { do: "select", index: 1 },
      { do: "split", closed: false },
    );
    expect(line.present.points[2]).toEqual([0.5, 0.2]);
  });

  test("are at most as many as a shape may have", () => {
    const many = Array.from({ length: MOST_POINTS }, (_, i): Point => [i / 100, 0.5]);
    const draws = run(begin(many), { do: "append", at: [0.9, 0.9] });
    expect(draws.present.points).toHaveLength(MOST_POINTS);
    expect(draws.past).toHaveLength(0);
  });

  test("are moved by the keyboard and removed", () => {
    const draws = run(begin(SQUARE), { do: "select", index: 2 }, { do: "nudge", by: [0.01, 0] });
    expect(draws.present.points[2]).toEqual([0.51, 0.5]);
    const { present } = run(draws, { do: "remove", index: 3 });
    expect(present.points).toHaveLength(3);
    expect(present.selected).toBe(2);
    expect(run(begin([]), { do: "nudge", by: [1, 1] }).past).toHaveLength(0);
  });
});

describe("undo", () => {
  test("takes a whole drag back, and redo repeats it", () => {
    const draws = run(
      begin(SQUARE),
      { do: "grab", index: 0 },
      { do: "drag", at: [0.2, 0.2] },
      { do: "drag", at: [0.3, 0.3] },
    );
    const back = run(draws, { do: "undo" });
    expect(back.present.points).toEqual(SQUARE);
    expect(run(back, { do: "redo" }).present.points[0]).toEqual([0.3, 0.3]);
  });

  test("does nothing after a click that moved nothing", () => {
    const draws = run(begin(SQUARE), { do: "grab", index: 1 });
    expect(draws.past).toHaveLength(0);
    expect(run(draws, { do: "undo" })).toEqual(draws);
  });

  test("takes a new point back together with the drag that placed it", () => {
    const draws = run(
      begin(SQUARE),
      { do: "append", at: [0.7, 0.7] },
      { do: "drag", at: [0.8, 0.8] },
      { do: "undo" },
    );
    expect(draws.present.points).toEqual(SQUARE);
  });

  test("is not followed by a redo after another change", () => {
    const draws = run(
      begin(SQUARE),
      { do: "remove", index: 0 },
      { do: "undo" },
      { do: "remove", index: 1 },
    );
    expect(run(draws, { do: "redo" })).toEqual(draws);
  });
});
