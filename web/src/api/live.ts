// Live events: one WebSocket for all cameras, which is opened again after an interruption with the
// last resume token, so that nothing is missed that the service still has.

import { socketAddress } from "./client";
import type { LiveMessage } from "./types";

/** Drops repeated events by (`run`, `camera`, `seq`); events of a camera come in order. */
export class Repetitions {
  private readonly last = new Map<string, { run: string; seq: number }>();

  /** Whether the event was not seen before. */
  isNew(message: LiveMessage): boolean {
    if (!("seq" in message)) return true;
    const last = this.last.get(message.camera);
    if (last && last.run === message.run && message.seq <= last.seq) return false;
    this.last.set(message.camera, { run: message.run, seq: message.seq });
    return true;
  }
}

/** Pause in milliseconds before attempt `n` (from 0) to connect again. */
export function pause(n: number): number {
  return Math.min(500 * 2 ** n, 8000);
}

export type Connection = "connecting" | "open" | "lost";

interface Listener {
  message(message: LiveMessage): void;
  connection(state: Connection): void;
}

/** The stream of live events, until `close`. */
export class Live {
  private socket: WebSocket | null = null;
  private token = "";
  private attempts = 0;
  private timer = 0;
  private closed = false;
  private readonly repetitions = new Repetitions();

  constructor(private readonly listener: Listener) {
    this.open();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private open(): void {
    this.listener.connection(this.attempts === 0 ? "connecting" : "lost");
    const socket = new WebSocket(socketAddress("live", {}) + this.resume());
    this.socket = socket;
    socket.onopen = () => {
      this.attempts = 0;
      this.listener.connection("open");
    };
    socket.onmessage = (event: MessageEvent<string>) => {
      const message = JSON.parse(event.data) as LiveMessage;
      if (message.schema === "twintrack.resume/1") this.token = message.token;
      else if (this.repetitions.isNew(message)) this.listener.message(message);
    };
    socket.onclose = () => {
      if (this.closed) return;
      this.listener.connection("lost");
      this.timer = window.setTimeout(() => this.open(), pause(this.attempts));
      this.attempts += 1;
    };
  }

  /** `resume` is present but empty at first: from now on. */
  private resume(): string {
    return `?resume=${encodeURIComponent(this.token)}`;
  }
}
