import { describe, expect, test } from "vitest";
import type { FrameEvent, LiveTrack, Shapes } from "./api/types";
import { LiveCamera } from "./live_cameras";

const track = (id: number, zones: string[] = []): LiveTrack => ({
  id,
  state: "confirmed",
  bbox: [0, 0, 10, 20],
  foot: [5, 20],
  zones,
});
const frame = (number: number, tracks: LiveTrack[] = [], run = "r"): FrameEvent => ({
  schema: "twintrack.trajectory/1",
  run,
  camera: "gate",
  seq: number,
  frame: number,
  pts: number / 10,
  width: 768,
  height: 576,
  tracks,
});
const SHAPES: Shapes = {
  camera: "gate",
  zones: { door: { points: [], unit: "share", origin: "drawn", limit: 1 } },
  lines: {},
  masks: {},
};

describe("a camera", () => {
  test("gives each picture the event of its frame, or the newest one before it", () => {
    const camera = new LiveCamera("gate");
    for (const number of [3, 4, 6]) camera.take(frame(number));
    expect([6, 5, 4, 9].map((n) => camera.eventOf(n)?.frame)).toEqual([6, 4, 4, 6]);
    expect(camera.eventOf(2)).toBeUndefined();
  });

  test("keeps six seconds of frames, of one run", () => {
    const camera = new LiveCamera("gate");
    expect(camera.frameRate()).toBeNull();
    for (let number = 1; number <= 200; number++) camera.take(frame(number));
    expect(camera.frames).toHaveLength(61);
    expect(camera.frameRate()).toBeCloseTo(10);
    camera.take(frame(201, [], "other"));
    expect(camera.frames).toHaveLength(1);
    // A recording that begins again.
    camera.take(frame(2, [], "other"));
    expect(camera.frames).toHaveLength(1);
    expect(camera.frameSize()).toEqual([768, 576]);
  });

  test("knows the people in a zone by its events, and before them by the tracks", () => {
    const camera = new LiveCamera("gate");
    camera.shapes.set(SHAPES);
    expect(camera.occupancy("door")).toBeUndefined();
    camera.take(frame(1, [track(1, ["door"]), track(2), track(3, ["other", "door"])]));
    expect(camera.occupancy("door")).toBe(2);
    expect(camera.isAlarmed("door")).toBe(true);
    const { run, seq } = { run: "r", seq: 2 };
    const event = { schema: "twintrack.zone/1", run, camera: "gate", seq, zone: "door" } as const;
    camera.take({ ...event, kind: "leave", occupancy: 1, entered: 2, left: 1 });
    expect(camera.occupancy("door")).toBe(1);
    expect(camera.isAlarmed("door")).toBe(false);
    expect(camera.events.get()).toHaveLength(1);
    // Another run begins with nobody.
    camera.take(frame(3, [], "other"));
    expect(camera.occupancy("door")).toBe(0);
  });

  test("takes state, size and counts from the list of cameras", () => {
    const camera = new LiveCamera("gate");
    const view = { name: "gate", tracked: 1, present: 0, people: 0, reconnects: 0, url: "" };
    camera.takeView({
      ...view,
      state: "offline",
      reason: "no route",
      frame: [640, 480],
      zones: { door: { occupancy: 3, over_limit: false } },
      lines: { in: { in: 2, out: 1 } },
    });
    expect(camera.state.get()).toEqual({ state: "offline", reason: "no route" });
    expect(camera.frameSize()).toEqual([640, 480]);
    expect([camera.occupancy("door"), camera.counts("in")?.in]).toEqual([3, 2]);
  });

  test("tells those who paint after each event, until they end it", () => {
    const camera = new LiveCamera("gate");
    let painted = 0;
    const end = camera.onFrame(() => {
      painted += 1;
    });
    camera.take(frame(1));
    camera.take({ schema: "twintrack.camera_status/1", run: "r", camera: "gate", state: "online" });
    expect(painted).toBe(2);
    expect(camera.state.get().state).toBe("online");
    end();
    camera.take(frame(2));
    expect(painted).toBe(2);
  });
});
