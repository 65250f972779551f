// Facts of a camera.

import { cameras, liveCamera } from "../live_cameras";
import { useValue } from "../store";
import { useSecond } from "./watching";

/** Facts of a camera: frames/s, latency, people, occupancy. */
export function CameraFacts({ name }: { name: string }) {
  useSecond();
  const camera = liveCamera(name);
  const view = useValue(cameras)?.find((c) => c.name === name);
  const shapes = useValue(camera.shapes);
  const rate = camera.frameRate();
  const latency = view?.latency_p95;
  const zones = Object.entries(shapes?.zones ?? {});
  return (
    <dl class="facts">
      <div>
        <dt>frames/s</dt>
        <dd>{rate === null ? "–" : rate.toFixed(1)}</dd>
      </div>
      <div>
        <dt>latency (p95)</dt>
        <dd>{latency === undefined ? "–" : `${Math.round(1000 * latency)} ms`}</dd>
      </div>
      <div>
        <dt>people now</dt>
        <dd>{view?.present ?? "–"}</dd>
      </div>
      <div>
        <dt>so far</dt>
        <dd>{view?.people ?? "–"}</dd>
      </div>
      {zones.map(([zone, { limit }]) => (
        <div key={zone} class={camera.isAlarmed(zone) ? "bad" : ""}>
          <dt>in {zone}</dt>
          <dd>
            {camera.occupancy(zone) ?? "–"}
            {limit === undefined ? "" : ` of ${limit}`}
          </dd>
        </div>
      ))}
    </dl>
  );
}
