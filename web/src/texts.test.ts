import { expect, test } from "vitest";
import type { Bucket } from "./api/types";
import { count, duration, fromLocal, moment, percent, toLocal } from "./format";
import { link, parseRoute } from "./route";
import { bucketsOf, isReversed, namesIn, roundUp } from "./statistics";

test("durations and counts are short", () => {
  expect([4.21, 42.4, 200, 7500, 3600].map(duration)).toEqual([
    "4.2 s",
    "42 s",
    "3 min 20 s",
    "2 h 5 min",
    "1 h",
  ]);
  expect([count(1, "track"), count(2, "track")]).toEqual(["1 track", "2 tracks"]);
  expect(percent(0.874)).toBe("87 %");
});

test("times of inputs are of this machine's zone, and sent as UTC", () => {
  const at = new Date(2026, 10, 27, 18, 5, 0);
  expect(toLocal(at)).toBe("2026-11-27T18:05");
  expect(fromLocal("2026-11-27T18:05")).toBe(at.toISOString());
  expect([fromLocal(""), fromLocal("x")]).toEqual([undefined, undefined]);
  expect(moment(at.toISOString())).toBe("2026-11-27 18:05:00");
  expect(moment("never")).toBe("never");
});

test("a route survives its way through the address", () => {
  const fragment = link("person", ["r", "a/b?c", 7], { zone: "a&b", from: "" });
  const { view, parts, query } = parseRoute(fragment);
  expect([view, ...parts]).toEqual(["person", "r", "a/b?c", "7"]);
  expect([...query]).toEqual([["zone", "a&b"]]);
  expect(parseRoute("").view).toBe("");
  expect(parseRoute("#/camera/%E0%A4%A").parts).toEqual(["%E0%A4%A"]);
});

test("buckets are chosen for the span, in round lengths", () => {
  const now = Date.parse("2026-11-27T12:00:00Z");
  const from = (hours: number) => new Date(now - hours * 3_600_000).toISOString();
  const length = (hours: number) => bucketsOf(from(hours), undefined, now).bucket;
  expect([1, 24, 24 * 7, 24 * 365].map(length)).toEqual([60, 3600, 14_400, 86_400]);
  // Whole buckets, that end after now.
  expect(bucketsOf(undefined, undefined, now + 1)).toEqual({
    from: "2026-11-26T12:00:00.000Z",
    to: "2026-11-27T13:00:00.000Z",
    bucket: 3600,
  });
  // An end before the begin is one bucket.
  const wrong = bucketsOf(from(0), from(5), now);
  expect(Date.parse(wrong.to) - Date.parse(wrong.from)).toBe(1000 * wrong.bucket);
  expect([0, 3, 7, 12, 230].map(roundUp)).toEqual([1, 3, 10, 20, 250]);
  const bucket = (lines: Bucket["lines"]): Bucket => ({ start: "", tracks: 0, lines, zones: {} });
  const buckets = [bucket({ b: { in: 1, out: 0 } }), bucket({ a: { in: 0, out: 0 } })];
  expect(namesIn(buckets, "lines")).toEqual(["a", "b"]);
});

test("a span that ends before it begins is reversed", () => {
  const [early, late] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"];
  expect(isReversed(late, early)).toBe(true);
  expect(isReversed(early, late)).toBe(false);
  expect(isReversed(late, undefined)).toBe(false);
});
