// The heat map as pixels. Pure.

import { heatColour } from "./colour";

/** RGBA pixels, a pixel per cell. Cells are coloured by the square root of their share of the
 * highest one, so that paths are visible beside a place where people wait. */
export function heatPixels(seconds: number[][]): Uint8ClampedArray<ArrayBuffer> {
  const columns = seconds[0]?.length ?? 0;
  const most = Math.max(...seconds.flat(), Number.MIN_VALUE);
  const pixels = new Uint8ClampedArray(4 * columns * seconds.length);
  for (const [row, values] of seconds.entries()) {
    for (const [column, value] of values.entries()) {
      const colour = value > 0 ? heatColour(Math.sqrt(value / most)) : [0, 0, 0, 0];
      pixels.set(colour, 4 * (row * columns + column));
    }
  }
  return pixels;
}
