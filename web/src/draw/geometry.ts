// Geometry of pictures and shapes. Pure.

import type { Point, Unit } from "../api/types";

/** Where a picture lies in a canvas: scale, and the offset of its left top corner. */
export interface Fit {
  scale: number;
  x: number;
  y: number;
}

/** Fits a picture as large as possible into a canvas, in its middle. */
export function fitted(
  [width, height]: [number, number],
  [canvasWidth, canvasHeight]: [number, number],
): Fit {
  const scale = Math.min(canvasWidth / width, canvasHeight / height);
  return { scale, x: (canvasWidth - width * scale) / 2, y: (canvasHeight - height * scale) / 2 };
}

/** Points as shares of the frame; null for metres, of which the page knows the pixels only. */
export function toShares(points: Point[], unit: Unit, frame: [number, number]): Point[] | null {
  if (unit === "metre") return null;
  const inside = points.every(([x, y]) => x >= 0 && x <= 1 && y >= 0 && y <= 1);
  if (unit === "share" || (unit === "auto" && inside)) return points.map(([x, y]) => [x, y]);
  return points.map(([x, y]) => [x / frame[0], y / frame[1]]);
}

/** Shares rounded to 4 digits, and kept inside the frame. */
export function tidy([x, y]: Point): Point {
  const within = (v: number) => Math.round(Math.min(Math.max(v, 0), 1) * 1e4) / 1e4;
  return [within(x), within(y)];
}

/** Mean of the points. */
export function middle(points: Point[]): Point {
  const n = Math.max(points.length, 1);
  const sum = points.reduce<Point>(([a, b], [x, y]) => [a + x, b + y], [0, 0]);
  return [sum[0] / n, sum[1] / n];
}

/** The place half way along a line, and the unit vector of the direction `in` there: from the left
 * hand to the right hand of somebody who goes along the points, as seen in the picture. Null
 * without a length. */
export function inward(points: Point[]): { at: Point; towards: Point } | null {
  const lengths = points
    .slice(1)
    .map(([x, y], i) => Math.hypot(x - (points[i]?.[0] ?? 0), y - (points[i]?.[1] ?? 0)));
  let left = lengths.reduce((a, b) => a + b, 0) / 2;
  for (const [i, length] of lengths.entries()) {
    const [a, b] = [points[i], points[i + 1]];
    if (a && b && length > 0 && left <= length) {
      const t = left / length;
      const [dx, dy] = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
      return { at: [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])], towards: [-dy, dx] };
    }
    left -= length;
  }
  return null;
}

const side = (a: Point, b: Point, p: Point) =>
  Math.sign((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]));

/** Whether the segments ab and cd cross. */
function cross(a: Point, b: Point, c: Point, d: Point): boolean {
  return side(a, b, c) * side(a, b, d) < 0 && side(c, d, a) * side(c, d, b) < 0;
}

/** Whether the closed polygon crosses itself. */
export function crossesItself(points: Point[]): boolean {
  const n = points.length;
  const edge = (i: number) => [points[i % n], points[(i + 1) % n]] as [Point, Point];
  for (let i = 0; i < n; i++) {
    for (let j = i + 2; j < n; j++) {
      if (i === 0 && j === n - 1) continue;
      if (cross(...edge(i), ...edge(j))) return true;
    }
  }
  return false;
}

/** The index at which a new point at `p` lengthens the shape least. */
export function insertionIndex(points: Point[], p: Point, closed: boolean): number {
  const far = (a: Point, b: Point) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  let [best, least] = [points.length, Number.POSITIVE_INFINITY];
  const edges = closed ? points.length : points.length - 1;
  for (let i = 0; i < edges; i++) {
    const [a, b] = [points[i], points[(i + 1) % points.length]];
    if (!a || !b) continue;
    const more = far(a, p) + far(p, b) - far(a, b);
    if (more < least) [best, least] = [i + 1, more];
  }
  return best;
}
