// Search by a picture of a person.

import { useEffect, useRef, useState } from "preact/hooks";
import { request } from "../api/client";
import { Problem } from "../api/problem";
import type { Box, SearchResult } from "../api/types";
import { route } from "../navigation";
import { BoxPicker } from "../parts/box_picker";
import { CameraFilter, Filters, TimeFilter } from "../parts/filters";
import { useAction } from "../parts/load";
import { Empty, ErrorNote, isNoHistory, NoHistory } from "../parts/notes";
import { TrackCards } from "../parts/track_card";
import { service } from "../session";
import { useValue } from "../store";

/** Largest picture that the service accepts, in bytes. */
const MOST_BYTES = 8 << 20;
const TYPES = ["image/jpeg", "image/png"];

/** Why a file cannot be sent; empty if it can. */
function unusable(file: File): string {
  if (!TYPES.includes(file.type)) return "picture: it must be a JPEG or PNG file";
  return file.size > MOST_BYTES ? "picture: it is larger than 8 MiB" : "";
}

interface DropProps {
  onFile(file: File): void;
}

/** Takes a picture by dropping, choosing or pasting it. */
function Drop({ onFile }: DropProps) {
  const [over, setOver] = useState(false);
  const take = (files: FileList | null | undefined) => {
    const file = files?.[0];
    if (file) onFile(file);
  };
  useEffect(() => {
    const paste = (event: ClipboardEvent) => take(event.clipboardData?.files);
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  });
  return (
    <label
      class={over ? "drop over" : "drop"}
      onDragOver={(e) => {
        e.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(e) => {
        e.preventDefault();
        setOver(false);
        take(e.dataTransfer?.files);
      }}
    >
      <span>Drop a picture of a person here, paste it, or choose a file (JPEG or PNG)</span>
      <input
        type="file"
        id="picture"
        accept={TYPES.join(",")}
        onChange={(e) => take(e.currentTarget.files)}
      />
    </label>
  );
}

export function SearchView() {
  const filters = new Filters("search", useValue(route).query);
  const can = useValue(service);
  const [file, setFile] = useState<File | null>(null);
  const [box, setBox] = useState<Box | null>(null);
  const [result, setResult] = useState<SearchResult | null>(null);
  const [refused, setRefused] = useState<Problem | null>(null);
  const searching = useAction();
  const newest = useRef(0);
  const search = (picture: File, within: Box | null) => {
    const turn = ++newest.current;
    searching.run(async () => {
      setResult(null);
      const query = {
        camera: filters.get("camera"),
        from: filters.time("from"),
        to: filters.time("to"),
        limit: 24,
        box: within?.map((v) => Math.round(v)).join(","),
      };
      const found = await request<SearchResult>("search", { method: "POST", query, body: picture });
      if (turn === newest.current) setResult(found);
    });
  };
  const take = (picture: File) => {
    const reason = unusable(picture);
    setRefused(reason ? new Problem(0, "unusable", reason) : null);
    setBox(null);
    setFile(reason ? null : picture);
    setResult(null);
    if (!reason) search(picture, null);
  };
  const { error } = searching;
  if (can?.history === false || isNoHistory(error)) return <NoHistory what="Searches" />;
  if (can?.search === false) {
    return (
      <Empty>
        This service stores no embeddings, so there is nothing to search in. Set{" "}
        <code>embeddings = true</code> in <code>[history]</code> and start it again.
      </Empty>
    );
  }
  return (
    <>
      <h1>Search by picture</h1>
      <form class="filters card padded" onSubmit={(e) => e.preventDefault()}>
        <CameraFilter filters={filters} />
        <TimeFilter filters={filters} />
      </form>
      <Drop onFile={take} />
      <ErrorNote error={refused ?? error} />
      {file && (
        <div class="two narrow">
          <div>
            <BoxPicker file={file} box={box ?? result?.box ?? null} onBox={setBox} />
            <p class="hint">
              If there are several people, draw a box around one (or use the fields), and search
              again.
            </p>
            <button
              type="button"
              class="main"
              disabled={searching.busy}
              onClick={() => search(file, box)}
            >
              Search again
            </button>
          </div>
          <div>
            <p aria-live="polite" id="found">
              {searching.busy && "Searching…"}
              {result && `${result.items.length} found, the most similar first`}
            </p>
            <TrackCards tracks={result?.items ?? []} />
          </div>
        </div>
      )}
    </>
  );
}
