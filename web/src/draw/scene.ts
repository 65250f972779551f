// Paints a camera's picture with boxes, trails, zones and lines into a canvas, in device pixels.

import type { Box, FrameEvent, Point, Shapes } from "../api/types";
import { ALARM, LINE, MASK, trackColour, ZONE } from "./colour";
import { type Fit, fitted, inward, middle } from "./geometry";

/** What is painted. */
export interface Show {
  boxes: boolean;
  names: boolean;
  trails: boolean;
  shapes: boolean;
}

export interface Scene {
  /** The picture, if there is one yet. */
  image: CanvasImageSource | null;
  /** Size of the source frame. */
  frame: [width: number, height: number];
  /** The event whose boxes are painted. */
  event: FrameEvent | undefined;
  /** Events of the last seconds for the trails, oldest first. */
  past: FrameEvent[];
  shapes: Shapes | null;
  /** Number of people in a zone, crossings of a line, if known. */
  occupancy(zone: string): number | undefined;
  counts(line: string): { in: number; out: number } | undefined;
  isAlarmed(zone: string): boolean;
  show: Show;
  /** Shape that is being edited and is therefore left out: its kind and name. */
  hidden?: string | undefined;
}

/** Seconds of a trail. */
const TRAIL = 4;

/** Paints the scene; `ratio` is the number of device pixels per CSS pixel. */
export function paint(context: CanvasRenderingContext2D, scene: Scene, ratio: number): void {
  const { canvas } = context;
  const placed = fitted(scene.frame, [canvas.width, canvas.height]);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const [width, height] = scene.frame;
  if (scene.image) {
    const { scale, x, y } = placed;
    context.drawImage(scene.image, x, y, width * scale, height * scale);
  }
  context.lineJoin = "round";
  const painter = new Painter(context, placed, ratio);
  if (scene.show.shapes && scene.shapes) painter.shapes(scene);
  if (!scene.event) return;
  if (scene.show.trails) painter.trails(scene.past, scene.event);
  if (scene.show.boxes) painter.boxes(scene.event, scene.show.names);
}

class Painter {
  constructor(
    private readonly context: CanvasRenderingContext2D,
    private readonly placed: Fit,
    private readonly ratio: number,
  ) {}

  private at([x, y]: Point): Point {
    return [this.placed.x + x * this.placed.scale, this.placed.y + y * this.placed.scale];
  }

  private trace(points: Point[], closed: boolean): void {
    this.context.beginPath();
    for (const point of points) this.context.lineTo(...this.at(point));
    if (closed) this.context.closePath();
  }

  shapes(scene: Scene): void {
    const { shapes, frame, hidden } = scene;
    if (!shapes) return;
    const { context, ratio } = this;
    const pixels = (s: { pixels?: Point[]; points: Point[]; unit: string }) =>
      s.pixels ??
      (s.unit === "share" ? s.points.map(([x, y]) => [x * frame[0], y * frame[1]] as Point) : []);
    const shown = (kind: string, all: Record<string, { points: Point[]; unit: string }>) =>
      Object.keys(all).filter((name) => `${kind}/${name}` !== hidden);
    for (const name of shown("masks", shapes.masks)) {
      const mask = shapes.masks[name];
      if (!mask) continue;
      this.trace(pixels(mask), true);
      context.fillStyle = "rgb(20 20 20 / 0.45)";
      context.fill();
      context.setLineDash([6 * ratio, 4 * ratio]);
      this.stroke(MASK, 1.5);
      context.setLineDash([]);
    }
    for (const name of shown("zones", shapes.zones)) {
      const zone = shapes.zones[name];
      const corners = zone ? pixels(zone) : [];
      if (!zone || corners.length === 0) continue;
      const colour = scene.isAlarmed(name) ? ALARM : ZONE;
      this.trace(corners, true);
      context.fillStyle = colour;
      context.globalAlpha = 0.14;
      context.fill();
      context.globalAlpha = 1;
      this.stroke(colour, 2);
      const people = scene.occupancy(name);
      const text = people === undefined ? name : `${name} ${people}`;
      this.label(text, this.at(middle(corners)), colour, "middle");
    }
    for (const name of shown("lines", shapes.lines)) {
      const line = shapes.lines[name];
      const points = line ? pixels(line) : [];
      if (!line || points.length < 2) continue;
      this.trace(points, false);
      this.stroke(LINE, 2.5);
      this.arrow(points, LINE);
      const counts = scene.counts(name);
      const text = counts ? `${name} in ${counts.in} out ${counts.out}` : name;
      this.label(text, this.at(points[0] ?? [0, 0]), LINE, "above");
    }
  }

  /** The arrow of the direction `in`. */
  private arrow(points: Point[], colour: string): void {
    const found = inward(points);
    if (!found) return;
    const { context, ratio } = this;
    const [x, y] = this.at(found.at);
    const [dx, dy] = found.towards;
    const [length, half] = [22 * ratio, 5 * ratio];
    const tip: Point = [x + dx * length, y + dy * length];
    const base: Point = [x + dx * (length - 2 * half), y + dy * (length - 2 * half)];
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(...base);
    this.stroke(colour, 2);
    context.beginPath();
    context.moveTo(...tip);
    context.lineTo(base[0] - dy * half, base[1] + dx * half);
    context.lineTo(base[0] + dy * half, base[1] - dx * half);
    context.closePath();
    context.fillStyle = colour;
    context.fill();
  }

  trails(past: FrameEvent[], event: FrameEvent): void {
    const feet = new Map<number, [pts: number, at: Point][]>();
    for (const { pts, frame, tracks } of past) {
      if (frame > event.frame || pts < event.pts - TRAIL) continue;
      for (const track of tracks) {
        const list = feet.get(track.id) ?? [];
        list.push([pts, track.foot]);
        feet.set(track.id, list);
      }
    }
    const { context, ratio } = this;
    context.lineCap = "round";
    context.lineWidth = 2 * ratio;
    for (const [id, list] of feet) {
      for (let i = 1; i < list.length; i++) {
        const [from, to] = [list[i - 1], list[i]];
        if (!from || !to) continue;
        const age = (event.pts - to[0]) / TRAIL;
        context.strokeStyle = trackColour(id, Math.max(0, 0.85 * (1 - age)));
        context.beginPath();
        context.moveTo(...this.at(from[1]));
        context.lineTo(...this.at(to[1]));
        context.stroke();
      }
    }
    context.lineCap = "butt";
  }

  boxes(event: FrameEvent, names: boolean): void {
    const { context, ratio } = this;
    for (const { id, state, bbox, identity } of event.tracks) {
      const colour = trackColour(id);
      const seen = state === "confirmed" || state === "interpolated";
      context.setLineDash(seen ? [] : [5 * ratio, 4 * ratio]);
      this.box(bbox, colour);
      context.setLineDash([]);
      const name = names && identity ? `${id} ${identity.name}` : `${id}`;
      this.label(name, this.at([bbox[0], bbox[1]]), colour, "above");
    }
  }

  private box([x, y, width, height]: Box, colour: string): void {
    const [left, top] = this.at([x, y]).map(Math.round) as Point;
    const [right, bottom] = this.at([x + width, y + height]).map(Math.round) as Point;
    this.context.beginPath();
    this.context.rect(left, top, right - left, bottom - top);
    this.stroke("rgb(0 0 0 / 0.55)", 3.5);
    this.stroke(colour, 2);
  }

  private stroke(colour: string, width: number): void {
    this.context.strokeStyle = colour;
    this.context.lineWidth = width * this.ratio;
    this.context.stroke();
  }

  /** A text on its background, above a point or around it, kept inside the canvas. */
  private label(text: string, [x, y]: Point, colour: string, place: "above" | "middle"): void {
    const { context, ratio } = this;
    const size = 12 * ratio;
    context.font = `600 ${size}px system-ui, sans-serif`;
    const [width, height] = [context.measureText(text).width + 8 * ratio, size + 5 * ratio];
    const wanted: Point =
      place === "above" ? [x - ratio, y - height] : [x - width / 2, y - height / 2];
    const within = (v: number, most: number) => Math.max(0, Math.min(v, most));
    const left = within(wanted[0], context.canvas.width - width);
    const top = within(wanted[1], context.canvas.height - height);
    context.fillStyle = colour;
    context.fillRect(left, top, width, height);
    context.fillStyle = "#000";
    context.textBaseline = "middle";
    context.fillText(text, left + 4 * ratio, top + height / 2 + 0.5 * ratio);
  }
}
