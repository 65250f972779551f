// Filters that several views share. They are in the address, so that a view can be linked to.

import { fromLocal, toLocal } from "../format";
import { cameraNames } from "../live_cameras";
import { replaceRoute } from "../navigation";
import { link } from "../route";
import { useValue } from "../store";

/** Reads and changes the query of a view's address. Times in it are those of datetime-local. */
export class Filters {
  constructor(
    private readonly view: string,
    private readonly query: URLSearchParams,
  ) {}

  get(key: string): string {
    return this.query.get(key) ?? "";
  }

  /** The time of a key, RFC 3339. */
  time(key: string): string | undefined {
    return fromLocal(this.get(key));
  }

  set(some: Record<string, string>): void {
    const all = { ...Object.fromEntries(this.query), ...some };
    replaceRoute(link(this.view, [], all));
  }
}

export function CameraFilter({ filters, all = true }: { filters: Filters; all?: boolean }) {
  const names = useValue(cameraNames);
  const value = filters.get("camera");
  return (
    <label>
      Camera
      <select value={value} onChange={(e) => filters.set({ camera: e.currentTarget.value })}>
        {all && <option value="">all</option>}
        {value && !names.includes(value) && <option>{value}</option>}
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

const SPANS: [hours: number, text: string][] = [
  [1, "Last hour"],
  [24, "Last day"],
  [168, "Last week"],
];

export function TimeFilter({ filters }: { filters: Filters }) {
  const field = (key: string, text: string) => (
    <label>
      {text}
      <input
        type="datetime-local"
        value={filters.get(key)}
        onChange={(e) => filters.set({ [key]: e.currentTarget.value })}
      />
    </label>
  );
  return (
    <>
      {field("from", "From")}
      {field("to", "To")}
      <span class="row spans">
        {SPANS.map(([hours, text]) => (
          <button
            key={hours}
            type="button"
            onClick={() =>
              filters.set({ from: toLocal(new Date(Date.now() - hours * 3_600_000)), to: "" })
            }
          >
            {text}
          </button>
        ))}
      </span>
    </>
  );
}

interface TextProps {
  filters: Filters;
  name: string;
  text: string;
}

export function TextFilter({ filters, name, text }: TextProps) {
  return (
    <label>
      {text}
      <input
        value={filters.get(name)}
        onChange={(e) => filters.set({ [name]: e.currentTarget.value.trim() })}
      />
    </label>
  );
}

export function NumberFilter({ filters, name, text }: TextProps) {
  return (
    <label>
      {text}
      <input
        type="number"
        min="0"
        step="any"
        value={filters.get(name)}
        onChange={(e) => filters.set({ [name]: e.currentTarget.value })}
      />
    </label>
  );
}
