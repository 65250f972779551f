// What the page computes about a fleet. Pure.

import type { FleetOverview, FleetWorker } from "./api/types";
import { count } from "./format";

/** Frames per second of a worker's cameras. */
export function rateOf(worker: FleetWorker): number {
  return Object.values(worker.cameras).reduce((sum, camera) => sum + camera.rate, 0);
}

/** A worker's frame rate as a share of its capacity. */
export function loadOf(worker: FleetWorker): number {
  return worker.capacity > 0 ? rateOf(worker) / worker.capacity : 0;
}

/** "60 cameras, 2 of them without a worker". */
export function cameraCounts({ cameras }: FleetOverview): string {
  const without = cameras.filter((c) => c.worker === undefined).length;
  return count(cameras.length, "camera") + (without ? `, ${without} of them without a worker` : "");
}
