// The form of the shape that is edited.

import { path, request } from "../api/client";
import type { ShapeKind, Shapes } from "../api/types";
import { liveCamera } from "../live_cameras";
import { useAction } from "../parts/load";
import { ErrorNote } from "../parts/notes";
import type { Draws, Step } from "./draft";
import { body, type Fields, isClosed, obstacle, WORD } from "./shape";

interface Props {
  camera: string;
  kind: ShapeKind;
  isNew: boolean;
  shapes: Shapes | null;
  fields: Fields;
  setFields(fields: Fields): void;
  draws: Draws;
  apply(step: Step): void;
  /** Called after saving, and when the user cancels. */
  onDone(): void;
}

export function ShapeForm(props: Props) {
  const { camera, kind, isNew, shapes, fields, setFields, draws, apply, onDone } = props;
  const saving = useAction();
  const { points, selected } = draws.present;
  const reason = obstacle(kind, fields, points, isNew, shapes);
  const set = (some: Partial<Fields>) => setFields({ ...fields, ...some });
  const save = async () => {
    const to = `cameras/${path(camera, kind, fields.name.trim())}`;
    await request(to, { method: "PUT", json: body(kind, fields, points) });
    await liveCamera(camera).readShapes();
    onDone();
  };
  return (
    <form
      class="card padded stack"
      aria-label={`Edit the ${WORD[kind]}`}
      onSubmit={(event) => {
        event.preventDefault();
        if (!reason) saving.run(save);
      }}
    >
      <h2>{isNew ? `New ${WORD[kind]}` : `Edit ${WORD[kind]} ${fields.name}`}</h2>
      <p class="hint">
        Click into the picture to add a point; drag points, or move them with the arrow keys (Shift:
        further). Delete or a right click removes a point, Enter adds one after it. Escape cancels.
      </p>
      <label>
        Name
        <input
          value={fields.name}
          disabled={!isNew}
          required
          maxLength={64}
          onInput={(e) => set({ name: e.currentTarget.value })}
        />
      </label>
      <KindFields kind={kind} fields={fields} set={set} />
      <div class="row">
        <button type="button" onClick={() => apply({ do: "split", closed: isClosed(kind) })}>
          Add point
        </button>
        <button
          type="button"
          disabled={selected === null}
          onClick={() => selected !== null && apply({ do: "remove", index: selected })}
        >
          Remove point
        </button>
        <button
          type="button"
          disabled={draws.past.length === 0}
          onClick={() => apply({ do: "undo" })}
        >
          Undo
        </button>
        <button
          type="button"
          disabled={draws.future.length === 0}
          onClick={() => apply({ do: "redo" })}
        >
          Redo
        </button>
      </div>
      <p class="hint" aria-live="polite">
        {reason ? `${reason}.` : "Ready to save."}
      </p>
      <ErrorNote error={saving.error} />
      <div class="row end">
        <button type="button" onClick={onDone}>
          Cancel
        </button>
        <button type="submit" class="main" disabled={saving.busy || reason !== ""}>
          Save
        </button>
      </div>
    </form>
  );
}

interface KindProps {
  kind: ShapeKind;
  fields: Fields;
  set(some: Partial<Fields>): void;
}

/** The fields that only this kind of shape has. */
function KindFields({ kind, fields, set }: KindProps) {
  if (kind === "lines") {
    return (
      <label>
        Wrong direction
        <select
          value={fields.wrong}
          onChange={(e) => set({ wrong: e.currentTarget.value as Fields["wrong"] })}
        >
          <option value="">none</option>
          <option value="in">in (along the arrow)</option>
          <option value="out">out (against the arrow)</option>
        </select>
      </label>
    );
  }
  if (kind === "masks") {
    return (
      <label>
        Leaves out
        <select
          value={fields.ignore}
          onChange={(e) => set({ ignore: e.currentTarget.value as Fields["ignore"] })}
        >
          <option value="detections">detections: nobody is tracked there</option>
          <option value="counting">counting: people are tracked, but not counted</option>
        </select>
      </label>
    );
  }
  return (
    <div class="row">
      <label>
        Event after a stay of (s)
        <input
          type="number"
          min="0.1"
          max="86400"
          step="any"
          value={fields.dwell}
          onInput={(e) => set({ dwell: e.currentTarget.value })}
        />
      </label>
      <label>
        Limit (people)
        <input
          type="number"
          min="0"
          max="100000"
          step="1"
          value={fields.limit}
          onInput={(e) => set({ limit: e.currentTarget.value })}
        />
      </label>
    </div>
  );
}
