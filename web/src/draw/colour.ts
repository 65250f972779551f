// Colours of tracks, charts and heat.

/** Hue in degrees of a track's colour: neighbouring ids are far apart (golden angle). */
export function hue(id: number): number {
  return (id * 137.508) % 360;
}

/** Colour of a track; readable on pictures, and below black text. */
export function trackColour(id: number, alpha = 1): string {
  return `hsl(${hue(id).toFixed(1)} 90% 62% / ${alpha})`;
}

/** Colour of the heat map for a value from 0 to 1: transparent, blue, yellow, red. */
export function heatColour(value: number): [r: number, g: number, b: number, a: number] {
  const v = Math.min(Math.max(value, 0), 1);
  const stops: [number, [number, number, number, number]][] = [
    [0, [30, 60, 255, 0]],
    [0.25, [30, 130, 255, 130]],
    [0.6, [255, 220, 40, 175]],
    [1, [255, 40, 20, 215]],
  ];
  for (let i = 1; i < stops.length; i++) {
    const [low, high] = [stops[i - 1], stops[i]];
    if (!low || !high || v > high[0]) continue;
    const t = (v - low[0]) / (high[0] - low[0]);
    const mix = (n: 0 | 1 | 2 | 3) => Math.round(low[1][n] + t * (high[1][n] - low[1][n]));
    return [mix(0), mix(1), mix(2), mix(3)];
  }
  return [255, 40, 20, 215];
}

export const ZONE = "#ffd23f";
export const LINE = "#4cc9ff";
export const MASK = "#c7c7c7";
export const ALARM = "#ff5a4f";
