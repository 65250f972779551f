// All cameras, live.

import { useEffect, useState } from "preact/hooks";
import { cameraNames, cameras, camerasError, liveCamera } from "../live_cameras";
import { CameraCanvas } from "../parts/camera_canvas";
import { Empty, ErrorNote } from "../parts/notes";
import { ShowSwitches } from "../parts/show_switches";
import { CameraStateNote } from "../parts/state";
import { link } from "../route";
import { useValue } from "../store";

/** Width of the requested pictures in pixels, and pictures per second. */
const [WIDTH, RATE] = [640, 12];
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
      {zones.map(([zone, { occupancy, limit }]) => (
        <div key={zone} class={camera.alarms.has(zone) ? "bad" : ""}>
          <dt>in {zone}</dt>
          <dd>
            {occupancy ?? "–"}
            {limit === undefined ? "" : ` of ${limit}`}
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Tile({ name }: { name: string }) {
  useShapes(name);
  return (
    <article class="card tile" data-camera={name}>
      <a class="picture" href={link("camera", [name])} aria-label={`camera ${name}`}>
        <CameraCanvas camera={name} width={WIDTH} rate={RATE} />
      </a>
      <div class="padded">
        <h2>
          <a href={link("camera", [name])}>{name}</a>
          <CameraStateNote camera={name} />
        </h2>
        <CameraFacts name={name} />
      </div>
    </article>
  );
}

export function GridView() {
  const names = useValue(cameraNames);
  const all = useValue(cameras);
  const error = useValue(camerasError);
  const online = all?.filter((c) => c.state === "online").length ?? 0;
  const people = all?.reduce((n, c) => n + c.present, 0) ?? 0;
  return (
    <>
      <div class="row heading">
        <h1>Live</h1>
        <p class="sum" id="sum">
          {all ? `${online} of ${all.length} cameras online, ${people} people now` : "connecting"}
        </p>
        <ShowSwitches />
      </div>
      <ErrorNote error={error} />
      {all?.length === 0 && <Empty>The configuration has no cameras.</Empty>}
      <div class="grid">
        {names.map((name) => (
          <Tile key={name} name={name} />
        ))}
      </div>
    </>
  );
}
