// What has happened at a camera: events of its zones and lines, and changes of its state.

import { path, request } from "../api/client";
import type { LineEvent, Page, StateChange, StoredEvent, ZoneEvent } from "../api/types";
import { clock, moment } from "../format";
import { liveCamera } from "../live_cameras";
import { service } from "../session";
import { useValue } from "../store";
import { useLoad } from "./load";
import { Empty } from "./notes";

/** Rows of the lists. */
const ROWS = 15;

const ACTIONS: Record<ZoneEvent["kind"], string> = {
  enter: "enters",
  leave: "leaves",
  dwell: "stays in",
  over_limit: "too many people in",
  within_limit: "no longer too many people in",
};

interface Row {
  key: string;
  time: string;
  text: string;
}

type Event = ZoneEvent | LineEvent;

function rowOf(event: Event): Row {
  const who = event.identity?.name ?? (event.track === undefined ? "" : `track ${event.track}`);
  const words =
    event.schema === "twintrack.line/1"
      ? ["crosses", event.line, `${event.direction}wards`, event.wrong && "(wrong direction)"]
      : [ACTIONS[event.kind], event.zone];
  return {
    key: `${event.run} ${event.seq}`,
    time: event.time ?? "",
    text: [who, ...words].filter(Boolean).join(" "),
  };
}

/** The newest events: those that arrive live, before them those of the history. */
export function RecentEvents({ name }: { name: string }) {
  const live = useValue(liveCamera(name).events).map(rowOf);
  const history = useValue(service)?.history;
  const { data } = useLoad(
    (signal) => {
      const query = { camera: name, limit: ROWS };
      if (!history) return Promise.resolve({ items: [] });
      return request<Page<StoredEvent>>("events", { query, signal });
    },
    [name, history],
  );
  const known = new Set(live.map((row) => row.key));
  const stored = (data?.items ?? []).map((e) => rowOf(e.event));
  const rows = [...live, ...stored.filter((row) => !known.has(row.key))].slice(0, ROWS);
  return (
    <section class="card padded">
      <h2>Recent events</h2>
      {rows.length === 0 && <Empty>None since this page was opened.</Empty>}
      <ul class="list events">
        {rows.map((row) => (
          <li key={row.key}>
            <time dateTime={row.time}>{row.time ? clock(row.time) : ""}</time>{" "}
            <span>{row.text}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** When the camera went offline and came back, if the history knows. */
export function StateChanges({ name }: { name: string }) {
  const history = useValue(service)?.history;
  const now = useValue(liveCamera(name).state);
  const { data } = useLoad(
    (signal) => {
      if (!history) return Promise.resolve({ items: [] });
      const to = `cameras/${path(name)}/status`;
      return request<{ items: StateChange[] }>(to, { query: { limit: 8 }, signal });
    },
    [name, history, now.state],
  );
  if (!data || data.items.length === 0) return null;
  return (
    <section class="card padded">
      <h2>Changes of state</h2>
      <ul class="list events">
        {data.items.map(({ time, state, reason }) => (
          <li key={`${time} ${state}`}>
            <time dateTime={time}>{moment(time)}</time>
            <span>
              {state}
              {reason ? `: ${reason}` : ""}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
