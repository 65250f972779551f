// The view that the page shows, as a value that follows the address.

import { parseRoute } from "./route";
import { Value } from "./store";

export const route = new Value(parseRoute(location.hash));

/** Follows the address from now on. */
export function followAddress(): void {
  window.addEventListener("hashchange", () => route.set(parseRoute(location.hash)));
}

/** Changes the address of the same view, without an entry in the browser's history. */
export function replaceRoute(fragment: string): void {
  history.replaceState(null, "", fragment);
  route.set(parseRoute(fragment));
}
