// The JSON of /api/v1 as far as the dashboard reads it (docs/reference/http.md, events.md). Times
// are RFC 3339, durations seconds, coordinates pixels of the source frame unless said.

export type Point = [x: number, y: number];
/** Left, top, width, height. */
export type Box = [number, number, number, number];
export type Role = "viewer" | "operator" | "admin";
export type CameraState = "connecting" | "online" | "offline" | "ended";

export interface Session {
  name: string;
  role: Role;
  kind: "user" | "token" | "local";
  csrf_token?: string;
}

/** What the service can do. */
export interface Service {
  version: string;
  run: string;
  history: boolean;
  search: boolean;
  embeddings: boolean;
  crops: boolean;
  /** Whether it is part of a fleet. */
  fleet: boolean;
}

export interface CameraView {
  name: string;
  state: CameraState;
  tracked: number;
  present: number;
  people: number;
  reconnects: number;
  latency_p95?: number;
  reason?: string;
  url: string;
  frame?: [width: number, height: number];
  zones?: Record<string, { occupancy: number; over_limit: boolean }>;
  lines?: Record<string, { in: number; out: number }>;
}

export interface Identity {
  name: string;
  similarity: number;
}

export interface LiveTrack {
  id: number;
  state: "confirmed" | "lost" | "predicted" | "interpolated";
  bbox: Box;
  foot: Point;
  identity?: Identity;
  zones?: string[];
  ground?: { position: Point; speed?: number };
}

/** `twintrack.trajectory/1`. */
export interface FrameEvent {
  schema: "twintrack.trajectory/1";
  run: string;
  camera: string;
  seq: number;
  frame: number;
  pts: number;
  time?: string;
  width: number;
  height: number;
  tracks: LiveTrack[];
}

/** `twintrack.zone/1`. */
export interface ZoneEvent {
  schema: "twintrack.zone/1";
  run: string;
  camera: string;
  seq: number;
  time?: string;
  zone: string;
  kind: "enter" | "leave" | "dwell" | "over_limit" | "within_limit";
  track?: number;
  identity?: Identity;
  stay?: number;
  occupancy: number;
  entered: number;
  left: number;
  limit?: number;
}

/** `twintrack.line/1`. */
export interface LineEvent {
  schema: "twintrack.line/1";
  run: string;
  camera: string;
  seq: number;
  time?: string;
  line: string;
  direction: "in" | "out";
  wrong?: boolean;
  track: number;
  identity?: Identity;
  in: number;
  out: number;
}

export interface StatusEvent {
  schema: "twintrack.camera_status/1";
  run: string;
  camera: string;
  state: CameraState;
  time?: string;
  reason?: string;
}

export interface EndedEvent {
  schema: "twintrack.track_ended/1";
  run: string;
  camera: string;
  seq: number;
  id: number;
}

export type LiveMessage =
  | FrameEvent
  | ZoneEvent
  | LineEvent
  | StatusEvent
  | EndedEvent
  | { schema: "twintrack.resume/1"; token: string }
  | { schema: "twintrack.missed/1" };

export type Unit = "auto" | "pixel" | "share" | "metre";
export type Origin = "configuration" | "drawn";

interface Shape {
  points: Point[];
  unit: Unit;
  origin: Origin;
  /** The points in pixels, once the size of the frames is known. */
  pixels?: Point[];
}
export interface Zone extends Shape {
  dwell?: number;
  limit?: number;
}
export interface Line extends Shape {
  wrong?: "in" | "out";
}
export interface Mask extends Shape {
  ignore: "detections" | "counting";
}
export interface Shapes {
  camera: string;
  frame?: [width: number, height: number];
  zones: Record<string, Zone>;
  lines: Record<string, Line>;
  masks: Record<string, Mask>;
}
export type ShapeKind = "zones" | "lines" | "masks";

/** Globally unique: (`run`, `camera`, `id`). */
export interface TrackKey {
  run: string;
  camera: string;
  id: number;
}
export interface Track extends TrackKey {
  first_time: string;
  last_time: string;
  first: number;
  last: number;
  duration: number;
  hits: number;
  ended: boolean;
  frame: [width: number, height: number];
  identity?: Identity;
  crops: number;
  /** Number of the person across cameras, once it has been decided. */
  person?: number;
  /** Its best crop. */
  crop?: string | number;
}
export interface View {
  id: string | number;
  time: string;
  pts: number;
  size: [width: number, height: number];
}
export interface TrackDetail extends Track {
  /** Presentation time and foot point. */
  path: [pts: number, x: number, y: number][];
  zones: string[];
  embedder?: string;
  views: View[];
}
export interface Match extends Track {
  distance: number;
  similarity?: number;
}
export interface Page<T> {
  items: T[];
  /** Cursor of the next page; absent on the last one. */
  next?: string;
}
export interface SearchResult {
  box?: Box;
  items: Match[];
}

/** A worker of the fleet, with its last report. */
export interface FleetWorker {
  id: string;
  name: string;
  /** Frames per second that it can process. */
  capacity: number;
  labels: string[];
  draining: boolean;
  gpu: boolean;
  version: string;
  /** By name; `rate`: frames per second. */
  cameras: Record<string, { lease: number; record: number; rate: number }>;
}
export interface FleetCamera {
  name: string;
  url: string;
  labels: string[];
  priority: number;
  revision: number;
  lease?: number;
  /** Absent if no worker tracks it. */
  worker?: string;
}
export interface FleetOverview {
  workers: FleetWorker[];
  cameras: FleetCamera[];
}

export interface Bucket {
  start: string;
  tracks: number;
  people_max?: number;
  lines: Record<string, { in: number; out: number }>;
  zones: Record<string, { entered: number; mean: number; max: number }>;
}
export interface Heatmap {
  camera: string;
  frame: [width: number, height: number];
  columns: number;
  rows: number;
  tracks: number;
  /** Whether there were more tracks than are counted. */
  truncated?: boolean;
  /** Person-seconds, by row and column. */
  seconds: number[][];
}

export interface EnrolledIdentity {
  name: string;
  created: string;
  embeddings: number;
  tracks: number;
}
export interface Deleted {
  tracks: number;
  crops: number;
  embeddings: number;
}

export interface StoredEvent {
  time: string;
  camera: string;
  kind: "zone" | "line";
  name: string;
  action: string;
  track?: number;
  event: ZoneEvent | LineEvent;
}

export interface StateChange {
  time: string;
  state: CameraState;
  reason?: string;
}

export interface AuditEntry {
  id?: string;
  time: string;
  principal?: string;
  address?: string;
  action: string;
  object?: string;
  result: string;
  reason?: string;
}
