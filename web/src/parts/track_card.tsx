// A track in a list: its best crop, when and where it was seen, and who it is.

import { address, path } from "../api/client";
import type { Match, Track } from "../api/types";
import { count, duration, moment, percent } from "../format";
import { link } from "../route";

export const cropAddress = (id: string | number) => address(`crops/${path(id)}`);

export const trackLink = ({ run, camera, id }: Track) => link("person", [run, camera, id]);

function likeness({ distance, similarity }: Match): string {
  return similarity === undefined
    ? `distance ${distance.toFixed(3)}`
    : `${percent(similarity)} similar`;
}

export function TrackCard({ track }: { track: Track | Match }) {
  return (
    <li class="card track" data-track={track.id}>
      <a href={trackLink(track)}>
        {track.crop === undefined ? (
          <span class="nocrop" aria-hidden="true">
            {track.ended ? "no crop" : "no crop yet"}
          </span>
        ) : (
          <img src={cropAddress(track.crop)} alt="" loading="lazy" decoding="async" />
        )}
        <span class="words">
          <strong>{track.identity?.name ?? `Track ${track.id}`}</strong>
          {"distance" in track && <span class="likeness">{likeness(track)}</span>}
          <span>{track.camera}</span>
          <time dateTime={track.first_time}>{moment(track.first_time)}</time>
          <span>
            {duration(track.duration)}
            {track.ended ? "" : ", goes on"}
          </span>
          <small>{count(track.hits, "detection")}</small>
        </span>
      </a>
    </li>
  );
}

export function TrackCards({ tracks }: { tracks: (Track | Match)[] }) {
  return (
    <ul class="tracks">
      {tracks.map((t) => (
        <TrackCard key={`${t.run}/${t.camera}/${t.id}`} track={t} />
      ))}
    </ul>
  );
}
