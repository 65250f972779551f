// Buckets of statistics. Pure.

import type { Bucket } from "./api/types";

/** Lengths of buckets in seconds that divide hours or days. */
const LENGTHS = [10, 60, 300, 900, 3600, 14_400, 86_400];
/** About so many buckets are shown. */
const WANTED = 60;
/** Seconds that are shown if no time is chosen. */
export const DEFAULT_SPAN = 86_400;

/** The length in seconds of the buckets for a span of time (RFC 3339; until now by default). */
export function bucketSeconds(
  from: string | undefined,
  to: string | undefined,
  now = Date.now(),
): number {
  const end = to ? Date.parse(to) : now;
  const span = from ? (end - Date.parse(from)) / 1000 : DEFAULT_SPAN;
  return LENGTHS.find((length) => span / length <= WANTED) ?? 86_400;
}

/** The names of lines or zones that occur in any bucket, sorted. */
export function namesIn(buckets: Bucket[], kind: "lines" | "zones"): string[] {
  return [...new Set(buckets.flatMap((b) => Object.keys(b[kind])))].sort();
}

/** A round number that is at least `value`, for the end of an axis. */
export function roundUp(value: number): number {
  if (value <= 5) return Math.max(1, Math.ceil(value));
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= value) ?? 10;
  return step * power;
}
