import { expect, test } from "vitest";
import type { Point, Shapes } from "../api/types";
import { body, fieldsOf, obstacle } from "./shape";

const TRIANGLE: Point[] = [
  [0, 0],
  [1, 0],
  [0, 1],
];
const SHAPES: Shapes = {
  camera: "gate",
  zones: {
    "zone-1": { points: TRIANGLE, unit: "share", origin: "drawn", dwell: 2.5, limit: 0 },
  },
  lines: {},
  masks: { m: { points: TRIANGLE, unit: "share", origin: "drawn", ignore: "counting" } },
};

test("a new shape has a free name, an existing one its settings", () => {
  expect(fieldsOf("zones", null, SHAPES).name).toBe("zone-2");
  expect(fieldsOf("lines", null, SHAPES).name).toBe("line-1");
  const zone = fieldsOf("zones", "zone-1", SHAPES);
  expect([zone.dwell, zone.limit]).toEqual(["2.5", "0"]);
  expect(fieldsOf("masks", "m", SHAPES).ignore).toBe("counting");
});

test("what keeps a shape from being saved is said, with the field", () => {
  const fields = fieldsOf("zones", null, SHAPES);
  const why = (points: Point[], name = fields.name, isNew = true) =>
    obstacle("zones", { ...fields, name }, points, isNew, SHAPES);
  expect(why(TRIANGLE.slice(1))).toBe("points: 1 more is needed");
  expect(why([])).toBe("points: 3 more are needed");
  expect(
    why([
      [0, 0],
      [1, 1],
      [1, 0],
      [0, 1],
    ]),
  ).toBe("points: the outline crosses itself");
  expect(why(TRIANGLE, " ")).toBe("name: it is missing");
  expect(why(TRIANGLE, "zone-1")).toMatch(/^name: there is a zone/);
  expect(why(TRIANGLE, "zone-1", false)).toBe("");
  expect(why(TRIANGLE)).toBe("");
});

test("the body has the fields of its kind only", () => {
  const fields = { name: "x", dwell: "3", limit: "", wrong: "out", ignore: "counting" } as const;
  const points = TRIANGLE;
  expect(body("zones", fields, points)).toEqual({ points, unit: "share", dwell: 3 });
  expect(body("lines", fields, points)).toEqual({ points, unit: "share", wrong: "out" });
  expect(body("lines", { ...fields, wrong: "" }, points)).toEqual({ points, unit: "share" });
  expect(body("masks", fields, points)).toEqual({ points, unit: "share", ignore: "counting" });
});
