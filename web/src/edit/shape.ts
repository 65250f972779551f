// What the form of a shape holds, and the request that saves it. Pure.

import type { Line, Mask, Point, ShapeKind, Shapes, Zone } from "../api/types";
import { crossesItself } from "../draw/geometry";

/** The fields of the form; texts as typed. */
export interface Fields {
  name: string;
  dwell: string;
  limit: string;
  wrong: "" | "in" | "out";
  ignore: "detections" | "counting";
}

export const WORD: Record<ShapeKind, string> = { zones: "zone", lines: "line", masks: "mask" };

/** Whether the last point is joined to the first one. */
export const isClosed = (kind: ShapeKind) => kind !== "lines";
/** Fewest points of a shape. */
export const fewest = (kind: ShapeKind) => (isClosed(kind) ? 3 : 2);

/** The form of an existing shape, or of a new one with a name that is free. */
export function fieldsOf(kind: ShapeKind, name: string | null, shapes: Shapes | null): Fields {
  const fields: Fields = { name: "", dwell: "", limit: "", wrong: "", ignore: "detections" };
  if (name === null) return { ...fields, name: freeName(kind, shapes) };
  const shape: Partial<Zone & Line & Mask> = shapes?.[kind][name] ?? {};
  return {
    name,
    dwell: shape.dwell?.toString() ?? "",
    limit: shape.limit?.toString() ?? "",
    wrong: shape.wrong ?? "",
    ignore: shape.ignore ?? "detections",
  };
}

function freeName(kind: ShapeKind, shapes: Shapes | null): string {
  const taken = new Set(Object.keys(shapes?.[kind] ?? {}));
  for (let n = 1; ; n++) {
    const name = `${WORD[kind]}-${n}`;
    if (!taken.has(name)) return name;
  }
}

/** Why the shape cannot be saved yet; empty if it can. The service checks more. */
export function obstacle(
  kind: ShapeKind,
  fields: Fields,
  points: Point[],
  isNew: boolean,
  shapes: Shapes | null,
): string {
  const missing = fewest(kind) - points.length;
  if (missing > 0) return `points: ${missing} more ${missing === 1 ? "is" : "are"} needed`;
  if (isClosed(kind) && crossesItself(points)) return "points: the outline crosses itself";
  if (!fields.name.trim()) return "name: it is missing";
  if (isNew && shapes?.[kind][fields.name.trim()]) {
    return `name: there is a ${WORD[kind]} of this name already`;
  }
  return "";
}

/** The body of the request that saves the shape. */
export function body(kind: ShapeKind, fields: Fields, points: Point[]): Record<string, unknown> {
  const common = { points, unit: "share" };
  if (kind === "masks") return { ...common, ignore: fields.ignore };
  if (kind === "lines") return fields.wrong ? { ...common, wrong: fields.wrong } : common;
  const numbers: Record<string, number> = {};
  if (fields.dwell.trim()) numbers.dwell = Number(fields.dwell);
  if (fields.limit.trim()) numbers.limit = Number(fields.limit);
  return { ...common, ...numbers };
}
