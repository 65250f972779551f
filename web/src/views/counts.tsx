// Counts and occupancy over time, and where people were.

import { address, path, request } from "../api/client";
import type { Bucket, Heatmap } from "../api/types";
import { duration } from "../format";
import { cameraNames } from "../live_cameras";
import { Chart } from "../parts/chart";
import { ExportLinks } from "../parts/exports";
import { CameraFilter, Filters, TimeFilter } from "../parts/filters";
import { HeatCanvas } from "../parts/heat_canvas";
import { useLoad } from "../parts/load";
import { Empty, ErrorNote, isNoHistory, NoHistory } from "../parts/notes";
import { bucketsOf, isReversed, namesIn } from "../statistics";
import { useValue } from "../store";

/** Columns of the heat map. */
const COLUMNS = 64;

interface Wanted {
  camera: string;
  from: string | undefined;
  to: string | undefined;
}

function Heat({ camera, from, to }: Wanted) {
  const { data, error } = useLoad(
    (signal) =>
      request<Heatmap>("heatmap", { query: { camera, from, to, columns: COLUMNS }, signal }),
    [camera, from, to],
  );
  const picture = address(`cameras/${path(camera)}/picture.jpg`, { width: 960, overlay: false });
  return (
    <section>
      <h2>Where people were: {camera}</h2>
      <ErrorNote error={error} />
      {data?.tracks === 0 && <Empty>No track has ended in this time.</Empty>}
      {data && data.tracks > 0 && <HeatCanvas heat={data} picture={picture} />}
    </section>
  );
}

function Charts({ buckets }: { buckets: Bucket[] }) {
  const starts = buckets.map((b) => b.start);
  const bars = (name: string, tone: "tone-1" | "tone-2", of: (b: Bucket) => number) => ({
    name,
    tone,
    kind: "bars" as const,
    values: buckets.map(of),
  });
  const line = (name: string, tone: "tone-2" | "tone-3", of: (b: Bucket) => number) => ({
    ...bars(name, "tone-1", of),
    tone,
    kind: "line" as const,
  });
  return (
    <div class="charts">
      <Chart
        title="People"
        starts={starts}
        series={[
          bars("tracks", "tone-1", (b) => b.tracks),
          line("most at a time", "tone-3", (b) => b.people_max ?? 0),
        ]}
      />
      {namesIn(buckets, "lines").map((name) => (
        <Chart
          key={`line ${name}`}
          title={`Line ${name}`}
          starts={starts}
          series={[
            bars("in", "tone-1", (b) => b.lines[name]?.in ?? 0),
            bars("out", "tone-2", (b) => b.lines[name]?.out ?? 0),
          ]}
        />
      ))}
      {namesIn(buckets, "zones").map((name) => (
        <Chart
          key={`zone ${name}`}
          title={`Zone ${name}`}
          starts={starts}
          series={[
            bars("entered", "tone-1", (b) => b.zones[name]?.entered ?? 0),
            line("mean occupancy", "tone-2", (b) => b.zones[name]?.mean ?? 0),
            line("highest occupancy", "tone-3", (b) => b.zones[name]?.max ?? 0),
          ]}
        />
      ))}
    </div>
  );
}

export function CountsView({ query }: { query: URLSearchParams }) {
  const filters = new Filters("counts", query);
  const names = useValue(cameraNames);
  const camera = filters.get("camera");
  const [from, to] = [filters.time("from"), filters.time("to")];
  const { bucket } = bucketsOf(from, to);
  const { data, error, loading, reload } = useLoad(
    (signal) => {
      const query = { ...bucketsOf(from, to), camera };
      return request<{ buckets: Bucket[] }>("statistics", { query, signal });
    },
    [camera, from, to],
  );
  if (isNoHistory(error)) return <NoHistory what="Counts over time" />;
  const reversed = isReversed(from, to);
  const isEmpty = !data?.buckets.some((b) => b.tracks || b.people_max);
  const shown = camera ? [camera] : names;
  return (
    <>
      <div class="row heading">
        <h1>Counts</h1>
        <p class="sum">bars of {duration(bucket)}</p>
        <button type="button" onClick={reload}>
          Refresh
        </button>
      </div>
      <form class="filters card padded" onSubmit={(e) => e.preventDefault()}>
        <CameraFilter filters={filters} />
        <TimeFilter filters={filters} />
      </form>
      <ErrorNote error={error} />
      {reversed && <Empty>From is after To: nothing can be counted in between.</Empty>}
      {!loading && isEmpty && !reversed && <Empty>Nothing was counted in this time.</Empty>}
      {data && !isEmpty && <Charts buckets={data.buckets} />}
      {shown.map((name) => (
        <Heat key={name} camera={name} from={from} to={to} />
      ))}
      <ExportLinks query={{ camera, from, to }} />
    </>
  );
}
