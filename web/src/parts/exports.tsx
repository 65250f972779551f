// Links that download the tracks of a filter. MOTChallenge files are of one camera.

import { address } from "../api/client";
import { may } from "../session";

const FORMATS: [format: string, text: string][] = [
  ["jsonl", "JSON lines"],
  ["csv", "CSV"],
  ["mot", "MOTChallenge"],
  ["parquet", "Parquet"],
];

export function ExportLinks({ query }: { query: Record<string, string | undefined> }) {
  if (!may("operator")) return null;
  return (
    <p class="links">
      Export the tracks:
      {FORMATS.filter(([format]) => format !== "mot" || query.camera).map(([format, text]) => (
        <a key={format} href={address("export/tracks", { ...query, format })} download="">
          {text}
        </a>
      ))}
    </p>
  );
}
