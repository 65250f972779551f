// What the live events say about each camera, and the settings of the shapes in its picture.

import { path, request } from "./api/client";
import { type Connection, Live } from "./api/live";
import type {
  CameraState,
  CameraView,
  FrameEvent,
  LineEvent,
  LiveMessage,
  Shapes,
  ZoneEvent,
} from "./api/types";
import { Value } from "./store";

/** Seconds of trajectory events that are kept for boxes and trails. */
const KEEP = 6;
/** Number of zone and line events that are kept for the list. */
const KEEP_EVENTS = 60;

/** One camera's live data. */
export class LiveCamera {
  /** Newest last. */
  frames: FrameEvent[] = [];
  readonly state = new Value<{ state: CameraState; reason?: string }>({ state: "connecting" });
  readonly shapes = new Value<Shapes | null>(null);
  /** Newest first. */
  readonly events = new Value<(ZoneEvent | LineEvent)[]>([]);
  private size: [width: number, height: number] | null = null;
  private readonly occupancies = new Map<string, number>();
  private readonly crossings = new Map<string, { in: number; out: number }>();
  private readonly painters = new Set<() => void>();

  constructor(readonly name: string) {}

  /** Calls `painter` after each event that changes the picture; returns what ends it. */
  onFrame(painter: () => void): () => void {
    this.painters.add(painter);
    return () => this.painters.delete(painter);
  }

  /** The event of a frame, or the newest one before it. */
  eventOf(frame: number): FrameEvent | undefined {
    for (let i = this.frames.length - 1; i >= 0; i--) {
      const event = this.frames[i];
      if (event && event.frame <= frame) return event;
    }
    return undefined;
  }

  /** Size of the frames, if it is known yet. */
  frameSize(): [width: number, height: number] | null {
    const last = this.frames.at(-1);
    return last ? [last.width, last.height] : (this.shapes.get()?.frame ?? this.size);
  }

  /** Frames per second of the last seconds; null before two frames. */
  frameRate(): number | null {
    const [first, last] = [this.frames[0], this.frames.at(-1)];
    if (!first || !last || last.pts <= first.pts) return null;
    return (this.frames.length - 1) / (last.pts - first.pts);
  }

  /** Takes state and counts from the list of cameras. Events between two readings change them. */
  takeView({ state, reason, frame, zones, lines }: CameraView): void {
    this.setState(state, reason);
    this.size ??= frame ?? null;
    for (const [name, { occupancy }] of Object.entries(zones ?? {})) {
      this.occupancies.set(name, occupancy);
    }
    for (const [name, counts] of Object.entries(lines ?? {})) this.crossings.set(name, counts);
  }

  private setState(state: CameraState, reason: string | undefined): void {
    const now = this.state.get();
    if (now.state === state && now.reason === reason) return;
    this.state.set(reason === undefined ? { state } : { state, reason });
  }

  take(message: LiveMessage): void {
    if (message.schema === "twintrack.trajectory/1") this.takeFrame(message);
    else if (message.schema === "twintrack.zone/1") this.takeZone(message);
    else if (message.schema === "twintrack.line/1") this.takeLine(message);
    else if (message.schema === "twintrack.camera_status/1") {
      this.setState(message.state, message.reason);
    } else return;
    for (const painter of this.painters) painter();
  }

  /** Reads the shapes again. @throws Problem */
  async readShapes(): Promise<void> {
    const shapes = await request<Shapes>(`cameras/${path(this.name)}/shapes`);
    this.shapes.set(shapes);
    for (const name of [...this.occupancies.keys()]) {
      if (!shapes.zones[name]) this.occupancies.delete(name);
    }
    for (const name of [...this.crossings.keys()]) {
      if (!shapes.lines[name]) this.crossings.delete(name);
    }
    for (const painter of this.painters) painter();
  }

  /** Number of people in a zone: as the service said last, else by the zones of the newest tracks;
   * absent before the first frame. */
  occupancy(zone: string): number | undefined {
    const known = this.occupancies.get(zone);
    if (known !== undefined) return known;
    return this.frames.at(-1)?.tracks.filter((t) => t.zones?.includes(zone)).length;
  }

  /** Number of crossings of a line in this run; absent if they are not known. */
  counts(line: string): { in: number; out: number } | undefined {
    return this.crossings.get(line);
  }

  /** Whether a zone holds more people than its limit. */
  isAlarmed(zone: string): boolean {
    const limit = this.shapes.get()?.zones[zone]?.limit;
    return limit !== undefined && (this.occupancy(zone) ?? 0) > limit;
  }

  private takeFrame(event: FrameEvent): void {
    const last = this.frames.at(-1);
    // A new run, or a recording that repeats, begins with new tracks.
    if (last && (last.run !== event.run || event.pts < last.pts)) this.frames = [];
    if (last && last.run !== event.run) {
      this.occupancies.clear();
      this.crossings.clear();
    }
    this.frames.push(event);
    const old = this.frames.findIndex((f) => f.pts >= event.pts - KEEP);
    if (old > 0) this.frames.splice(0, old);
  }

  private takeZone(event: ZoneEvent): void {
    this.occupancies.set(event.zone, event.occupancy);
    this.remember(event);
  }

  private takeLine(event: LineEvent): void {
    this.crossings.set(event.line, { in: event.in, out: event.out });
    this.remember(event);
  }

  private remember(event: ZoneEvent | LineEvent): void {
    this.events.set([event, ...this.events.get()].slice(0, KEEP_EVENTS));
  }
}

const all = new Map<string, LiveCamera>();
let live: Live | null = null;

/** Whether live events arrive. */
export const connection = new Value<Connection>("connecting");
/** Whether events were missed: the connection was lost for longer than the service keeps them. */
export const missed = new Value(false);
/** State and counters of the cameras, read every two seconds. */
export const cameras = new Value<CameraView[] | null>(null);
/** Names of the cameras; changes only when a camera comes or goes. */
export const cameraNames = new Value<string[]>([]);
/** The last error of reading `cameras`. */
export const camerasError = new Value<unknown>(null);

/** The live data of a camera. */
export function liveCamera(name: string): LiveCamera {
  let camera = all.get(name);
  if (!camera) {
    camera = new LiveCamera(name);
    all.set(name, camera);
  }
  return camera;
}

/** Connects, and begins to read `cameras`. */
export function startLive(): void {
  if (live) return;
  live = new Live({
    message: (message) => {
      if (message.schema === "twintrack.missed/1") missed.set(true);
      else if ("camera" in message) liveCamera(message.camera).take(message);
    },
    connection: (state) => connection.set(state),
  });
  void readCameras();
}

/** Milliseconds between two readings of `cameras`. */
const READ_EVERY = 2000;

async function readCameras(): Promise<void> {
  try {
    const overview = await request<{ cameras: CameraView[] }>("cameras");
    cameras.set(overview.cameras);
    camerasError.set(null);
    for (const view of overview.cameras) liveCamera(view.name).takeView(view);
    const names = overview.cameras.map((c) => c.name);
    if (names.join("\n") !== cameraNames.get().join("\n")) cameraNames.set(names);
  } catch (error) {
    camerasError.set(error);
  }
  setTimeout(() => void readCameras(), document.hidden ? 5 * READ_EVERY : READ_EVERY);
}
