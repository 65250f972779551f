// Fragments of the page's address that say what it shows: `#/camera/gate?zone=door`. Pure.

export interface Route {
  /** Name of the view; empty for the first one. */
  view: string;
  /** Further parts of the path. */
  parts: string[];
  query: URLSearchParams;
}

const decoded = (part: string) => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
};

export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#?\/?/, "");
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  const [view = "", ...parts] = path.split("/").map(decoded);
  return { view, parts, query: new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1)) };
}

type Query = Record<string, string | number | undefined>;

/** The fragment of a view; empty values are left out. */
export function link(view: string, parts: (string | number)[] = [], query: Query = {}): string {
  const path = [view, ...parts].map((p) => encodeURIComponent(p)).join("/");
  const all = Object.entries(query).filter(([, v]) => v !== undefined && v !== "");
  const text = new URLSearchParams(all.map(([k, v]) => [k, String(v)])).toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}
