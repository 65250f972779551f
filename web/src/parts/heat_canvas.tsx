// A heat map over the camera's picture.

import { useEffect, useRef } from "preact/hooks";
import type { Heatmap } from "../api/types";
import { heatPixels } from "../draw/heat";
import { count, duration } from "../format";

export function HeatCanvas({ heat, picture }: { heat: Heatmap; picture: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const highest = Math.max(...heat.seconds.flat());
  const total = heat.seconds.flat().reduce((a, b) => a + b, 0);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    context?.putImageData(new ImageData(heatPixels(heat.seconds), heat.columns, heat.rows), 0, 0);
  }, [heat]);
  return (
    <figure class="heat">
      <div>
        <img src={picture} alt={`what ${heat.camera} sees`} />
        <canvas
          ref={canvas}
          width={heat.columns}
          height={heat.rows}
          role="img"
          aria-label="heat map"
        />
      </div>
      <figcaption>
        {count(heat.tracks, "track")}, {duration(total)} in all; red: {duration(highest)} in one
        cell{heat.truncated ? "; of the newest tracks only" : ""}
      </figcaption>
    </figure>
  );
}
