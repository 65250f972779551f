// What this service can do, settings of this browser, and the shapes of all cameras.

import { cameraNames, liveCamera } from "../live_cameras";
import { ExportLinks } from "../parts/exports";
import { ShapeList } from "../parts/shape_list";
import { ShowSwitches } from "../parts/show_switches";
import { useShapes } from "../parts/watching";
import { link } from "../route";
import { service, session } from "../session";
import { change, settings, type Theme } from "../settings";
import { useValue } from "../store";

const THEMES: [Theme, string][] = [
  ["system", "as the system"],
  ["light", "light"],
  ["dark", "dark"],
];

function CameraShapes({ name }: { name: string }) {
  useShapes(name);
  const shapes = useValue(liveCamera(name).shapes);
  return (
    <section class="card padded">
      <h3>
        <a href={link("camera", [name])}>{name}</a>
      </h3>
      <ShapeList
        camera={name}
        shapes={shapes}
        onEdit={() => {
          location.hash = link("camera", [name]);
        }}
      />
    </section>
  );
}

export function SettingsView() {
  const { theme } = useValue(settings);
  const who = useValue(session);
  const about = useValue(service);
  const names = useValue(cameraNames);
  const has = (value: boolean | undefined) => (value ? "on" : "off");
  return (
    <>
      <h1>Settings</h1>
      <div class="charts">
        <section class="card padded stack">
          <h2>This browser</h2>
          <label>
            Theme
            <select
              value={theme}
              onChange={(e) => change({ theme: e.currentTarget.value as Theme })}
            >
              {THEMES.map(([value, text]) => (
                <option key={value} value={value}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          <ShowSwitches />
        </section>
        <section class="card padded">
          <h2>This service</h2>
          <dl class="facts wide">
            <div>
              <dt>version</dt>
              <dd>{about?.version ?? "–"}</dd>
            </div>
            <div>
              <dt>history</dt>
              <dd>{has(about?.history)}</dd>
            </div>
            <div>
              <dt>embeddings, for search</dt>
              <dd>{has(about?.embeddings)}</dd>
            </div>
            <div>
              <dt>crops</dt>
              <dd>{has(about?.crops)}</dd>
            </div>
            <div>
              <dt>you are</dt>
              <dd>
                {who?.name} ({who?.role})
              </dd>
            </div>
          </dl>
          <p class="hint">run {about?.run ?? "–"}</p>
          {about?.history && <ExportLinks query={{}} />}
        </section>
      </div>
      <h2>Zones, lines and masks</h2>
      <div class="charts">
        {names.map((name) => (
          <CameraShapes key={name} name={name} />
        ))}
      </div>
    </>
  );
}
