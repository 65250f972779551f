// All cameras, live.

import { cameraNames, cameras, camerasError } from "../live_cameras";
import { CameraCanvas } from "../parts/camera_canvas";
import { CameraFacts } from "../parts/camera_facts";
import { Empty, ErrorNote } from "../parts/notes";
import { ShowSwitches } from "../parts/show_switches";
import { CameraStateNote } from "../parts/state";
import { useShapes } from "../parts/watching";
import { link } from "../route";
import { useValue } from "../store";

/** Largest width of the pictures in pixels, and most pictures per second. */
const [WIDTH, RATE] = [960, 15];
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
      <div class="grid" style={{ "--columns": Math.ceil(Math.sqrt(names.length)) }}>
        {names.map((name) => (
          <Tile key={name} name={name} />
        ))}
      </div>
    </>
  );
}
