// Values that views watch.

import { useEffect, useState } from "preact/hooks";

/** A value that can be watched. */
export class Value<T> {
  private readonly watchers = new Set<() => void>();

  constructor(private current: T) {}

  get(): T {
    return this.current;
  }

  set(next: T): void {
    if (Object.is(next, this.current)) return;
    this.current = next;
    for (const watcher of [...this.watchers]) watcher();
  }

  /** Calls `watcher` after each change; returns the function that ends it. */
  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }
}

/** The value, in a component that is drawn again when it changes. */
export function useValue<T>(value: Value<T>): T {
  const [, redraw] = useState({});
  useEffect(() => value.watch(() => redraw({})), [value]);
  return value.get();
}
