// The zones, lines and masks of a camera.

import { useState } from "preact/hooks";
import { path, request } from "../api/client";
import type { Line, Mask, ShapeKind, Shapes, Zone } from "../api/types";
import { WORD } from "../edit/shape";
import { duration } from "../format";
import { type LiveCamera, liveCamera } from "../live_cameras";
import { may } from "../session";
import { Confirm } from "./dialog";
import { Empty } from "./notes";
import { useSecond } from "./watching";

export const KINDS: ShapeKind[] = ["zones", "lines", "masks"];

interface Props {
  camera: string;
  shapes: Shapes | null;
  onEdit(kind: ShapeKind, name: string): void;
}

/** What a button opens in the editor: a kind for a new shape, or a shape. */
export const opens = (kind: ShapeKind, name: string | null) =>
  name === null ? kind : `${kind}/${name}`;

/** A shape's settings and counts in a few words. */
function about(camera: LiveCamera, kind: ShapeKind, name: string, shape: Zone | Line | Mask) {
  const { dwell, limit, wrong, ignore } = shape as Partial<Zone & Line & Mask>;
  const people = kind === "zones" ? camera.occupancy(name) : undefined;
  const counts = kind === "lines" ? camera.counts(name) : undefined;
  const words = [];
  if (people !== undefined) words.push(`${people} inside`);
  if (limit !== undefined) words.push(`limit ${limit}`);
  if (dwell !== undefined) words.push(`event after ${duration(dwell)}`);
  if (counts) words.push(`${counts.in} in, ${counts.out} out`);
  if (wrong) words.push(`wrong direction: ${wrong}`);
  if (ignore) words.push(`leaves out ${ignore}`);
  return words.join("; ");
}

export function ShapeList({ camera, shapes, onEdit }: Props) {
  useSecond();
  const [removing, setRemoving] = useState<{ kind: ShapeKind; name: string } | null>(null);
  const rows = KINDS.flatMap((kind) =>
    Object.entries(shapes?.[kind] ?? {}).map(([name, shape]) => ({ kind, name, shape })),
  );
  const remove = async () => {
    if (!removing) return;
    const to = `cameras/${path(camera, removing.kind, removing.name)}`;
    await request(to, { method: "DELETE" });
    await liveCamera(camera).readShapes();
    setRemoving(null);
  };
  if (rows.length === 0) return <Empty>This camera has no zones, lines or masks.</Empty>;
  return (
    <>
      <ul class="list">
        {rows.map(({ kind, name, shape }) => (
          <li key={`${kind}/${name}`} data-shape={`${kind}/${name}`}>
            <span class={`swatch ${kind}`} aria-hidden="true" />
            <span class="grow">
              <strong>{name}</strong> <small>{WORD[kind]}</small>
              <br />
              <small class="about">{about(liveCamera(camera), kind, name, shape)}</small>
            </span>
            {shape.origin === "configuration" ? (
              <small title="Change it in the configuration file">from the configuration</small>
            ) : (
              may("operator") && (
                <span class="row">
                  <button
                    type="button"
                    aria-label={`edit ${WORD[kind]} ${name}`}
                    data-opens={opens(kind, name)}
                    onClick={() => onEdit(kind, name)}
                  >
                    Edit
                  </button>
                  <button
                    type="button"
                    aria-label={`delete ${WORD[kind]} ${name}`}
                    onClick={() => setRemoving({ kind, name })}
                  >
                    Delete
                  </button>
                </span>
              )
            )}
          </li>
        ))}
      </ul>
      {removing && (
        <Confirm
          title={`Delete ${WORD[removing.kind]} ${removing.name}?`}
          text="Its counts stay in the history; it counts nobody from now on."
          yes="Delete"
          onYes={remove}
          onClose={() => setRemoving(null)}
        />
      )}
    </>
  );
}
