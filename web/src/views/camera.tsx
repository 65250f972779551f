// One camera large, with its shapes and the editor for them.

import { useEffect, useReducer, useRef, useState } from "preact/hooks";
import type { Point, ShapeKind } from "../api/types";
import { toShares } from "../draw/geometry";
import { begin, type Draws, type Step, step } from "../edit/draft";
import { type Fields, fieldsOf, WORD } from "../edit/shape";
import { ShapeCanvas } from "../edit/shape_canvas";
import { ShapeForm } from "../edit/shape_form";
import { cameraNames, liveCamera } from "../live_cameras";
import { CameraCanvas } from "../parts/camera_canvas";
import { RecentEvents, StateChanges } from "../parts/camera_events";
import { CameraFacts } from "../parts/camera_facts";
import { Empty, ErrorNote } from "../parts/notes";
import { KINDS, opens, ShapeList } from "../parts/shape_list";
import { ShowSwitches } from "../parts/show_switches";
import { CameraStateNote } from "../parts/state";
import { useSecond } from "../parts/watching";
import { link } from "../route";
import { may } from "../session";
import { useValue } from "../store";
import { BirdsEye } from "./birds_eye";

/** Largest width of the pictures in pixels, and most pictures per second. */
const [WIDTH, RATE] = [1920, 15];

/** The shape that is edited; the name is null for a new one. */
interface Editing {
  kind: ShapeKind;
  name: string | null;
}

type Start = { do: "start"; points: Point[] };
const reduce = (draws: Draws, action: Step | Start): Draws =>
  action.do === "start" ? begin(action.points) : step(draws, action);

export function CameraPage({ name }: { name: string }) {
  const camera = liveCamera(name);
  const shapes = useValue(camera.shapes);
  const names = useValue(cameraNames);
  const [error, setError] = useState<unknown>(null);
  const [editing, setEditing] = useState<Editing | null>(null);
  const [fields, setFields] = useState<Fields>(() => fieldsOf("zones", null, null));
  const [draws, apply] = useReducer(reduce, begin([]));
  const stage = useRef<HTMLDivElement>(null);
  useSecond();
  useEffect(() => {
    camera.readShapes().then(() => setError(null), setError);
  }, [camera]);
  const frame = camera.frameSize();
  const ratio = frame ? frame[0] / frame[1] : 4 / 3;
  useEffect(() => {
    stage.current?.style.setProperty("--ratio", String(ratio));
  }, [ratio]);

  const open = (kind: ShapeKind, shape: string | null) => {
    const found = shape === null ? null : (shapes?.[kind][shape] ?? null);
    const size = frame ?? [1, 1];
    const inShares = found && toShares(found.points, found.unit, size);
    const fromPixels = found?.pixels?.map(([x, y]): Point => [x / size[0], y / size[1]]);
    apply({ do: "start", points: inShares ?? fromPixels ?? [] });
    setFields(fieldsOf(kind, shape, shapes));
    setEditing({ kind, name: shape });
  };
  // The focus goes back to the button that opened the editor, which is made anew.
  const back = useRef("");
  const done = () => {
    back.current = editing ? opens(editing.kind, editing.name) : "";
    setEditing(null);
  };
  useEffect(() => {
    if (editing || !back.current) return;
    document.querySelector<HTMLElement>(`[data-opens="${CSS.escape(back.current)}"]`)?.focus();
    back.current = "";
  }, [editing]);
  useEffect(() => {
    if (!editing) return;
    const onKey = (event: KeyboardEvent) => {
      const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
      const typing = event.target instanceof HTMLInputElement;
      if (event.key === "Escape") done();
      else if (undo && !typing) apply({ do: event.shiftKey ? "redo" : "undo" });
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [editing]);
  const hidden = editing?.name ? `${editing.kind}/${editing.name}` : undefined;
  if (names.length > 0 && !names.includes(name)) {
    return (
      <Empty>
        There is no camera {name}. <a href={link("")}>All cameras</a>
      </Empty>
    );
  }
  return (
    <>
      <div class="row heading">
        <h1>{name}</h1>
        <CameraStateNote camera={name} />
        <ShowSwitches />
      </div>
      <ErrorNote error={error} />
      <div class="two">
        <div class="stage" ref={stage} data-camera={name}>
          <CameraCanvas camera={name} width={WIDTH} rate={RATE} {...(hidden ? { hidden } : {})} />
          {editing && frame && (
            <ShapeCanvas
              kind={editing.kind}
              draft={draws.present}
              fresh={editing.name === null}
              frame={frame}
              apply={apply}
            />
          )}
        </div>
        <div class="stack">
          {editing ? (
            <ShapeForm
              camera={name}
              kind={editing.kind}
              isNew={editing.name === null}
              shapes={shapes}
              fields={fields}
              setFields={setFields}
              draws={draws}
              apply={apply}
              onDone={done}
            />
          ) : (
            <section class="card padded">
              <h2>Zones, lines and masks</h2>
              <ShapeList camera={name} shapes={shapes} onEdit={open} />
              {may("operator") && (
                <div class="row">
                  {KINDS.map((kind) => (
                    <button
                      key={kind}
                      type="button"
                      data-opens={opens(kind, null)}
                      disabled={!frame || !shapes}
                      onClick={() => open(kind, null)}
                    >
                      New {WORD[kind]}
                    </button>
                  ))}
                </div>
              )}
            </section>
          )}
          <section class="card padded">
            <h2>Now</h2>
            <CameraFacts name={name} />
            <p class="links">
              <a href={link("tracks", [], { camera: name })}>Tracks</a>
              <a href={link("counts", [], { camera: name })}>Counts and heat map</a>
            </p>
          </section>
          <BirdsEye name={name} />
          <RecentEvents name={name} />
          <StateChanges name={name} />
        </div>
      </div>
    </>
  );
}
