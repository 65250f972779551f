// The people of a camera with a ground plane, from above.

import type { Point } from "../api/types";
import { trackColour } from "../draw/colour";
import { liveCamera } from "../live_cameras";
import { useSecond } from "../parts/watching";

/** Metres of margin around the positions. */
const MARGIN = 1;

/** A map with a square for each metre. It covers where people were in the last seconds. */
export function BirdsEye({ name }: { name: string }) {
  useSecond();
  const { frames } = liveCamera(name);
  const trails = new Map<number, Point[]>();
  for (const { tracks } of frames) {
    for (const { id, ground } of tracks) {
      if (ground) trails.set(id, [...(trails.get(id) ?? []), ground.position]);
    }
  }
  const all = [...trails.values()].flat();
  if (all.length === 0) return null;
  const range = (values: number[]): [number, number] => [
    Math.floor(Math.min(...values) - MARGIN),
    Math.ceil(Math.max(...values) + MARGIN),
  ];
  const [left, right] = range(all.map((p) => p[0]));
  const [bottom, top] = range(all.map((p) => p[1]));
  const lines = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const now = new Map((frames.at(-1)?.tracks ?? []).map((t) => [t.id, t.ground?.speed]));
  // Y grows upwards on the ground, and downwards on the screen.
  return (
    <section class="card padded">
      <h2>From above</h2>
      <svg
        class="above"
        viewBox={`${left} ${-top} ${right - left} ${top - bottom}`}
        role="img"
        aria-label={`positions of ${now.size} people in metres`}
      >
        {lines(left, right).map((x) => (
          <line key={`x${x}`} x1={x} x2={x} y1={-top} y2={-bottom} />
        ))}
        {lines(bottom, top).map((y) => (
          <line key={`y${y}`} x1={left} x2={right} y1={-y} y2={-y} />
        ))}
        {[...trails].map(([id, points]) => {
          const last = points.at(-1) ?? [0, 0];
          return (
            <g key={id}>
              <polyline
                points={points.map(([x, y]) => `${x},${-y}`).join(" ")}
                stroke={trackColour(id, 0.6)}
              />
              {now.has(id) && <circle cx={last[0]} cy={-last[1]} r="0.25" fill={trackColour(id)} />}
            </g>
          );
        })}
      </svg>
      <p class="hint">A square is one metre wide.</p>
    </section>
  );
}
