import { expect, test } from "vitest";
import type { FleetCamera, FleetWorker } from "./api/types";
import { cameraCounts, loadOf, rateOf } from "./fleet";

const worker = (capacity: number, rates: number[]): FleetWorker => ({
  id: "1",
  name: "a",
  capacity,
  labels: [],
  draining: false,
  gpu: false,
  version: "1",
  cameras: Object.fromEntries(rates.map((rate, i) => [`c${i}`, { lease: 1, record: 1, rate }])),
});
const camera = (name: string, at?: string): FleetCamera => ({
  name,
  url: "rtsp://h/",
  labels: [],
  priority: 0,
  revision: 1,
  ...(at === undefined ? {} : { worker: at, lease: 1 }),
});

test("a worker's load is the frame rate of its cameras as a share of its capacity", () => {
  expect(rateOf(worker(30, [10, 12.5]))).toBe(22.5);
  expect(loadOf(worker(30, [10, 12.5]))).toBe(0.75);
  expect(loadOf(worker(0, []))).toBe(0);
});

test("cameras without a worker are counted", () => {
  const of = (cameras: FleetCamera[]) => cameraCounts({ workers: [], cameras });
  expect(of([camera("x", "a")])).toBe("1 camera");
  expect(of([camera("x", "a"), camera("y")])).toBe("2 cameras, 1 of them without a worker");
});
