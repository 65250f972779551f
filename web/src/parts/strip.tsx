// Number of tracks over time, as a strip of bars; a bar can be chosen.

import type { Bucket } from "../api/types";
import { count, moment } from "../format";

interface Props {
  buckets: Bucket[];
  onChoose(start: string): void;
}

export function Strip({ buckets, onChoose }: Props) {
  const most = Math.max(1, ...buckets.map((b) => b.tracks));
  return (
    <fieldset class="strip">
      <legend class="hidden">Tracks over time</legend>
      {buckets.map((b) => (
        <button
          key={b.start}
          type="button"
          title={`${moment(b.start)}: ${count(b.tracks, "track")}`}
          aria-label={`${moment(b.start)}: ${count(b.tracks, "track")}`}
          onClick={() => onChoose(b.start)}
        >
          <span style={{ height: `${(100 * b.tracks) / most}%` }} />
        </button>
      ))}
    </fieldset>
  );
}
