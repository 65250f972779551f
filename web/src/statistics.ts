// Buckets of statistics. Pure.

import type { Bucket } from "./api/types";

/** Lengths of buckets in seconds that divide hours or days. */
const LENGTHS = [10, 60, 300, 900, 3600, 14_400, 86_400];
/** About so many buckets are shown. */
const WANTED = 60;
/** Seconds that are shown if no time is chosen. */
const DEFAULT_SPAN = 86_400;

/** A span of time in buckets: begin and end (RFC 3339), and the length of a bucket in seconds. */
export interface Span {
  from: string;
  to: string;
  bucket: number;
}

/** The buckets for a span of time (RFC 3339); by default the last day until now. The span is
 * widened to whole buckets, counted from midnight UTC. */
export function bucketsOf(
  from: string | undefined,
  to: string | undefined,
  now = Date.now(),
): Span {
  const end = to ? Date.parse(to) : now;
  const begin = from ? Date.parse(from) : end - 1000 * DEFAULT_SPAN;
  const span = Math.max(end - begin, 0) / 1000;
  const bucket = LENGTHS.find((length) => span / length <= WANTED) ?? 86_400;
  const whole = (time: number, round: (n: number) => number) =>
    new Date(round(time / 1000 / bucket) * bucket * 1000).toISOString();
  return { from: whole(begin, Math.floor), to: whole(Math.max(end, begin + 1), Math.ceil), bucket };
}

/** Whether a span ends before it begins. */
export function isReversed(from: string | undefined, to: string | undefined): boolean {
  return from !== undefined && to !== undefined && Date.parse(from) > Date.parse(to);
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
