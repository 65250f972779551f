import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Connection, Live } from "./live";
import type { LiveMessage } from "./types";

/** A socket that the test opens, feeds and closes. */
class FakeSocket {
  static all: FakeSocket[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  closed = false;

  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }

  close(): void {
    this.closed = true;
  }

  send(message: LiveMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("document", { baseURI: "https://gate.example/watch/" });
  vi.stubGlobal("window", { setTimeout, clearTimeout });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const ended = (seq: number): LiveMessage => ({
  schema: "twintrack.track_ended/1",
  run: "r",
  camera: "gate",
  seq,
  id: seq,
});

test("after an interruption the stream goes on where it was, without repetitions", () => {
  const seen: number[] = [];
  const states: Connection[] = [];
  const live = new Live({
    message: (message) => "seq" in message && seen.push(message.seq),
    connection: (state) => states.push(state),
  });
  const [first] = FakeSocket.all;
  expect(first?.url).toBe("wss://gate.example/watch/api/v1/live?resume=");
  first?.onopen?.();
  first?.send(ended(1));
  first?.send({ schema: "twintrack.resume/1", token: "a.1" });
  first?.send(ended(2));
  first?.onclose?.();
  expect(states).toEqual(["connecting", "open", "lost"]);
  vi.advanceTimersByTime(499);
  expect(FakeSocket.all).toHaveLength(1);
  vi.advanceTimersByTime(1);
  const second = FakeSocket.all[1];
  expect(second?.url).toBe("wss://gate.example/watch/api/v1/live?resume=a.1");
  // It cannot connect at first, and waits longer.
  second?.onclose?.();
  vi.advanceTimersByTime(999);
  expect(FakeSocket.all).toHaveLength(2);
  vi.advanceTimersByTime(1);
  const third = FakeSocket.all[2];
  third?.onopen?.();
  third?.send(ended(2));
  third?.send(ended(3));
  expect(seen).toEqual([1, 2, 3]);
  expect(states.at(-1)).toBe("open");
  // Nothing is opened after the end.
  live.close();
  third?.onclose?.();
  vi.advanceTimersByTime(60_000);
  expect(third?.closed).toBe(true);
  expect(FakeSocket.all).toHaveLength(3);
});
