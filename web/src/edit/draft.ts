// The points of a shape while it is edited, with undo. Pure.

import type { Point } from "../api/types";
import { insertionIndex, tidy } from "../draw/geometry";

export interface Draft {
  /** Shares of the frame. */
  points: Point[];
  /** Index of the selected point. */
  selected: number | null;
}

export interface Draws {
  present: Draft;
  /** Newest last. */
  past: Draft[];
  /** Next one last. */
  future: Draft[];
  /** Whether `past` has the state before the drag that goes on. */
  held: boolean;
}

export type Step =
  /** Adds a point at the end. */
  | { do: "append"; at: Point }
  /** Adds a point where it lengthens the shape least. */
  | { do: "insert"; at: Point; closed: boolean }
  /** Adds a point half way after the selected one. */
  | { do: "split"; closed: boolean }
  /** Takes a point to drag it; one undo takes the whole drag back. */
  | { do: "grab"; index: number }
  /** Moves the grabbed point. */
  | { do: "drag"; at: Point }
  /** Moves the selected point by shares of the frame. */
  | { do: "nudge"; by: Point }
  | { do: "remove"; index: number }
  | { do: "select"; index: number | null }
  | { do: "undo" }
  | { do: "redo" };

/** Most points of a shape. */
export const MOST_POINTS = 64;
/** Undo steps that are kept. */
const KEPT = 100;

export function begin(points: Point[]): Draws {
  return {
    present: { points: points.map(tidy), selected: null },
    past: [],
    future: [],
    held: false,
  };
}

function changed(draws: Draws, present: Draft): Draws {
  return { present, past: [...draws.past, draws.present].slice(-KEPT), future: [], held: false };
}

function added(draws: Draws, index: number, at: Point): Draws {
  const { points } = draws.present;
  if (points.length >= MOST_POINTS) return draws;
  const present = { points: points.toSpliced(index, 0, tidy(at)), selected: index };
  return { ...changed(draws, present), held: true };
}

/** The point for `split`: half way to the next point, or in the middle of the picture. */
function between({ points, selected }: Draft, closed: boolean): [index: number, at: Point] {
  const from = selected ?? points.length - 1;
  const last = from === points.length - 1 && !closed;
  // After the last point of a line there is none: the line goes on in its direction.
  const [a, b] = last
    ? [points[from], points[from - 1]]
    : [points[from], points[(from + 1) % points.length]];
  if (!a) return [0, [0.5, 0.5]];
  if (!b || b === a) return [from + 1, [a[0] + 0.2, a[1]]];
  const t = last ? -0.5 : 0.5;
  return [from + 1, [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]];
}

export function step(draws: Draws, action: Step): Draws {
  const { present, past, future } = draws;
  const { points, selected } = present;
  const moved = (index: number, at: Point): Draft => ({
    points: points.with(index, tidy(at)),
    selected: index,
  });
  switch (action.do) {
    case "append":
      return added(draws, points.length, action.at);
    case "insert":
      return added(draws, insertionIndex(points, action.at, action.closed), action.at);
    case "split":
      return added(draws, ...between(present, action.closed));
    case "grab":
      return { ...draws, present: { points, selected: action.index }, held: false };
    case "drag": {
      if (selected === null) return draws;
      const next = moved(selected, action.at);
      return draws.held ? { ...draws, present: next } : { ...changed(draws, next), held: true };
    }
    case "nudge": {
      const at = selected === null ? undefined : points[selected];
      if (selected === null || !at) return draws;
      return changed(draws, moved(selected, [at[0] + action.by[0], at[1] + action.by[1]]));
    }
    case "remove": {
      if (!points[action.index]) return draws;
      const left = points.toSpliced(action.index, 1);
      const next = left.length === 0 ? null : Math.min(action.index, left.length - 1);
      return changed(draws, { points: left, selected: next });
    }
    case "select":
      return { ...draws, present: { points, selected: action.index } };
    case "undo": {
      const before = past.at(-1);
      if (!before) return draws;
      return {
        present: before,
        past: past.slice(0, -1),
        future: [...future, present],
        held: false,
      };
    }
    case "redo": {
      const after = future.at(-1);
      if (!after) return draws;
      return { present: after, past: [...past, present], future: future.slice(0, -1), held: false };
    }
  }
}
