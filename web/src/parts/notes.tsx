// Errors, empty lists, and what is missing.

import type { ComponentChildren } from "preact";
import { Problem, sentence } from "../api/problem";

/** An error as one sentence; read out by screen readers. The element is always there, because some
 * of them read only changes. */
export function ErrorNote({ error }: { error: unknown }) {
  return (
    <p class={error ? "note bad" : "note none"} role="alert">
      {error ? sentence(error) : ""}
    </p>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="note">{children}</p>;
}

/** Whether the service has no history. */
export function isNoHistory(error: unknown): boolean {
  return error instanceof Problem && error.code === "no-history";
}

/** How to turn the history on. */
export function NoHistory({ what }: { what: string }) {
  return (
    <section class="card padded">
      <h1>{what} need the history</h1>
      <p>
        This service stores no history. To turn it on, add these lines to the service's
        configuration and start it again:
      </p>
      <pre>
        <code>
          {"[history]\nembeddings = true   # for search\ncrops = true        # pictures of people"}
        </code>
      </pre>
      <p>
        The history keeps tracks, events and, if you turn them on, crops and embeddings in a
        database. How long it keeps them is set in <code>[history.keep_days]</code>.
      </p>
    </section>
  );
}
