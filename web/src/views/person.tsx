// One track: its path over the picture, its crops, similar people, and its identity.

import { useState } from "preact/hooks";
import { address, path, request } from "../api/client";
import { Problem } from "../api/problem";
import type { EnrolledIdentity, Match, Page, Track, TrackDetail } from "../api/types";
import { trackColour } from "../draw/colour";
import { count, duration, moment, percent } from "../format";
import { Ask, Confirm } from "../parts/dialog";
import { useLoad } from "../parts/load";
import { Empty, ErrorNote, isNoHistory, NoHistory } from "../parts/notes";
import { cropAddress, TrackCards } from "../parts/track_card";
import { link } from "../route";
import { may } from "../session";

/** Number of the person's other tracks that are shown. */
const OTHERS = 12;

interface Props {
  run: string;
  camera: string;
  id: string;
}

/** The path over the camera's newest picture. */
function PathPicture({ track }: { track: TrackDetail }) {
  const [width, height] = track.frame;
  const size = width / 90;
  const [first, last] = [track.path[0], track.path.at(-1)];
  // The history of a fleet has no pictures.
  const [hasPicture, setHasPicture] = useState(true);
  const picture = address(`cameras/${path(track.camera)}/picture.jpg`, {
    width: 960,
    overlay: false,
  });
  return (
    <svg class="path" viewBox={`0 0 ${width} ${height}`} role="img" aria-label="path">
      <title>{`path of track ${track.id} over the newest picture of ${track.camera}`}</title>
      <rect class="nopicture" width={width} height={height} />
      {hasPicture && (
        <image href={picture} width={width} height={height} onError={() => setHasPicture(false)} />
      )}
      <polyline
        points={track.path.map(([, x, y]) => `${x},${y}`).join(" ")}
        stroke={trackColour(track.id)}
        stroke-width={size * 0.45}
      />
      {first && <circle class="first" cx={first[1]} cy={first[2]} r={size} />}
      {last && <circle class="last" cx={last[1]} cy={last[2]} r={size} />}
    </svg>
  );
}

function Facts({ track }: { track: TrackDetail }) {
  const { identity } = track;
  return (
    <dl class="facts wide">
      <div>
        <dt>camera</dt>
        <dd>
          <a href={link("camera", [track.camera])}>{track.camera}</a>
        </dd>
      </div>
      <div>
        <dt>first seen</dt>
        <dd>{moment(track.first_time)}</dd>
      </div>
      <div>
        <dt>last seen</dt>
        <dd>{moment(track.last_time)}</dd>
      </div>
      <div>
        <dt>duration</dt>
        <dd>
          {duration(track.duration)}
          {track.ended ? "" : ", goes on"}
        </dd>
      </div>
      <div>
        <dt>detections</dt>
        <dd>{track.hits}</dd>
      </div>
      <div>
        <dt>zones</dt>
        <dd>{track.zones.join(", ") || "none"}</dd>
      </div>
      {identity && (
        <div>
          <dt>identity</dt>
          <dd>
            <a href={link("tracks", [], { identity: identity.name })}>{identity.name}</a> (
            {percent(identity.similarity)})
          </dd>
        </div>
      )}
    </dl>
  );
}

/** Other tracks of the same person, at this camera and at others. */
function SamePerson({ track, person }: { track: TrackDetail; person: number }) {
  const { data, error } = useLoad(
    (signal) => request<Page<Track>>("tracks", { query: { person, limit: OTHERS + 1 }, signal }),
    [person],
  );
  const own = (t: Track) => t.run === track.run && t.camera === track.camera && t.id === track.id;
  const others = data?.items.filter((t) => !own(t)).slice(0, OTHERS) ?? [];
  return (
    <section id="same-person">
      <h2>The same person</h2>
      <p class="hint">
        Tracks that were assigned to person {person} by appearance, time and the cameras' topology.{" "}
        <a href={link("tracks", [], { person })}>All of them</a>
      </p>
      <ErrorNote error={error} />
      {data && others.length === 0 && <Empty>This person has no other track.</Empty>}
      <TrackCards tracks={others} />
    </section>
  );
}

function Similar({ track }: { track: TrackDetail }) {
  const to = `tracks/${path(track.run, track.camera, track.id)}/similar`;
  const { data, error } = useLoad(
    (signal) => request<{ items: Match[] }>(to, { query: { limit: 12 }, signal }),
    [to],
  );
  const none = error instanceof Problem && error.code === "no-embedding";
  return (
    <section>
      <h2>Similar people</h2>
      {none ? (
        <Empty>
          This track has no embedding to compare. Embeddings are stored at the end of a track, with{" "}
          <code>history.embeddings = true</code>.
        </Empty>
      ) : (
        <ErrorNote error={error} />
      )}
      {data?.items.length === 0 && <Empty>There is nobody to compare with.</Empty>}
      <TrackCards tracks={data?.items ?? []} />
    </section>
  );
}

/** Enrols the track, or renames and deletes its identity. */
function IdentityButtons({ track, reload }: { track: TrackDetail; reload(): void }) {
  const [open, setOpen] = useState<"enrol" | "rename" | "delete" | null>(null);
  if (!may("operator")) return null;
  const close = () => setOpen(null);
  const after = async (work: Promise<unknown>) => {
    await work;
    close();
    reload();
  };
  const { run, camera, id } = track;
  const name = track.identity?.name ?? "";
  const identity = `identities/${path(name)}`;
  return (
    <div class="row">
      <button type="button" onClick={() => setOpen("enrol")}>
        Enrol this person
      </button>
      {name && (
        <>
          <button type="button" onClick={() => setOpen("rename")}>
            Rename {name}
          </button>
          {may("admin") && (
            <button type="button" onClick={() => setOpen("delete")}>
              Delete {name}
            </button>
          )}
        </>
      )}
      {open === "enrol" && (
        <Ask
          title="Enrol this person"
          label="Name; a known name gets this track's appearance too"
          value={name}
          yes="Enrol"
          onYes={(as) => {
            const json = { name: as, track: { run, camera, id } };
            return after(request<EnrolledIdentity>("identities", { method: "POST", json }));
          }}
          onClose={close}
        />
      )}
      {open === "rename" && (
        <Ask
          title={`Rename ${name}`}
          label="New name"
          value={name}
          yes="Rename"
          onYes={(as) =>
            after(request(`${identity}/rename`, { method: "POST", json: { name: as } }))
          }
          onClose={close}
        />
      )}
      {open === "delete" && (
        <Confirm
          title={`Delete ${name}?`}
          text={`The name, its embeddings, and the crops and embeddings of all tracks of ${name} are deleted. Times and paths of the tracks stay.`}
          yes="Delete"
          onYes={() => after(request(identity, { method: "DELETE" }))}
          onClose={close}
        />
      )}
    </div>
  );
}

export function PersonView({ run, camera, id }: Props) {
  const to = `tracks/${path(run, camera, id)}`;
  const {
    data: track,
    error,
    reload,
  } = useLoad((signal) => request<TrackDetail>(to, { signal }), [to]);
  if (isNoHistory(error)) return <NoHistory what="Tracks" />;
  if (!track) return <ErrorNote error={error} />;
  return (
    <>
      <div class="row heading">
        <h1>{track.identity?.name ?? `Track ${track.id}`}</h1>
        <IdentityButtons track={track} reload={reload} />
      </div>
      <ErrorNote error={error} />
      <div class="two">
        <div>
          <PathPicture track={track} />
          <p class="hint">
            {track.path.length > 0
              ? "The path of the feet, from the ring to the dot, over the camera's newest picture."
              : "The path is stored when the track ends."}
          </p>
        </div>
        <div class="stack">
          <section class="card padded">
            <h2>When and where</h2>
            <Facts track={track} />
          </section>
          <section class="card padded">
            <h2>{count(track.views.length, "crop")}</h2>
            <ul class="views">
              {track.views.map((view) => (
                <li key={view.id}>
                  <img src={cropAddress(view.id)} alt={`seen at ${moment(view.time)}`} />
                </li>
              ))}
            </ul>
          </section>
        </div>
      </div>
      {track.person !== undefined && <SamePerson track={track} person={track.person} />}
      <Similar track={track} />
    </>
  );
}
