// The timeline of tracks: how many there were when, and each with its crop.

import { useEffect, useState } from "preact/hooks";
import { request } from "../api/client";
import type { Bucket, Page, Track } from "../api/types";
import { toLocal } from "../format";
import { ExportLinks } from "../parts/exports";
import { CameraFilter, Filters, NumberFilter, TextFilter, TimeFilter } from "../parts/filters";
import { useAction, useLoad } from "../parts/load";
import { Empty, ErrorNote, isNoHistory, NoHistory } from "../parts/notes";
import { Strip } from "../parts/strip";
import { TrackCards } from "../parts/track_card";
import { bucketsOf } from "../statistics";

/** Tracks per page. */
const LIMIT = 48;

function Timeline({ filters }: { filters: Filters }) {
  const [from, to, camera] = [filters.time("from"), filters.time("to"), filters.get("camera")];
  const { bucket } = bucketsOf(from, to);
  const { data } = useLoad(
    (signal) => {
      const query = { ...bucketsOf(from, to), camera };
      return request<{ buckets: Bucket[] }>("statistics", { query, signal });
    },
    [from, to, camera],
  );
  if (!data || data.buckets.length === 0) return null;
  return (
    <Strip
      buckets={data.buckets}
      onChoose={(start) => {
        const end = new Date(new Date(start).getTime() + bucket * 1000);
        // Inputs have whole minutes.
        filters.set({
          from: toLocal(new Date(start)),
          to: toLocal(new Date(Math.max(end.getTime(), new Date(start).getTime() + 60_000))),
        });
      }}
    />
  );
}

export function TracksView({ query }: { query: URLSearchParams }) {
  const filters = new Filters("tracks", query);
  const wanted = {
    camera: filters.get("camera"),
    from: filters.time("from"),
    to: filters.time("to"),
    zone: filters.get("zone"),
    identity: filters.get("identity"),
    person: filters.get("person"),
    min_duration: filters.get("min_duration"),
  };
  const key = JSON.stringify(wanted);
  const first = useLoad(
    (signal) => request<Page<Track>>("tracks", { query: { ...wanted, limit: LIMIT }, signal }),
    [key],
  );
  const [more, setMore] = useState<Page<Track>>({ items: [] });
  const paging = useAction();
  useEffect(() => setMore({ items: [] }), [first.data]);
  if (isNoHistory(first.error)) return <NoHistory what="Tracks" />;
  const items = [...(first.data?.items ?? []), ...more.items];
  const next = more.items.length > 0 ? more.next : first.data?.next;
  const nextPage = async () => {
    const page = await request<Page<Track>>("tracks", {
      query: { ...wanted, limit: LIMIT, cursor: next },
    });
    setMore({ ...page, items: [...more.items, ...page.items] });
  };
  return (
    <>
      <div class="row heading">
        <h1>Tracks</h1>
        <button type="button" onClick={first.reload}>
          Refresh
        </button>
      </div>
      <form class="filters card padded" onSubmit={(e) => e.preventDefault()}>
        <CameraFilter filters={filters} />
        <TimeFilter filters={filters} />
        <TextFilter filters={filters} name="zone" text="Zone" />
        <TextFilter filters={filters} name="identity" text="Identity" />
        <NumberFilter filters={filters} name="person" text="Person" />
        <NumberFilter filters={filters} name="min_duration" text="At least (s)" />
      </form>
      <Timeline filters={filters} />
      <ErrorNote error={first.error} />
      <p class="sum" aria-live="polite" id="found">
        {first.loading ? "Loading…" : `${items.length} shown${next ? ", there are more" : ""}`}
      </p>
      {!first.loading && items.length === 0 && <Empty>No tracks match the filters.</Empty>}
      <TrackCards tracks={items} />
      <ErrorNote error={paging.error} />
      <div class="row">
        {next && (
          <button type="button" disabled={paging.busy} onClick={() => paging.run(nextPage)}>
            Show more
          </button>
        )}
      </div>
      <ExportLinks query={wanted} />
    </>
  );
}
