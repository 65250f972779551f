// Following of a camera while a component shows it.

import { useEffect, useState } from "preact/hooks";
import { liveCamera } from "../live_cameras";

/** Milliseconds between two readings of the shapes, which others may change. */
const READ_SHAPES = 30_000;

/** Reads a camera's shapes at first and every half minute. */
export function useShapes(camera: string): void {
  useEffect(() => {
    const read = () =>
      liveCamera(camera)
        .readShapes()
        .catch(() => undefined);
    void read();
    const timer = setInterval(read, READ_SHAPES);
    return () => clearInterval(timer);
  }, [camera]);
}

/** Draws the component again every second, for values that change with every frame. */
export function useSecond(): void {
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => redraw((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
}
