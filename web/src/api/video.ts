// Pictures of one camera over a WebSocket: each message is a frame number, its presentation time
// and a JPEG.

import { path, socketAddress } from "./client";
import { pause } from "./live";

export interface Picture {
  frame: number;
  /** Presentation time in seconds. */
  pts: number;
  image: ImageBitmap;
}

/** Header of a message: u64 frame number and f64 presentation time, both big-endian. */
const HEADER = 16;

/** Longest pause in milliseconds before the stream is opened again: a camera without a picture yet
 * refuses it. */
const LONGEST = 2000;

/** Splits a message into its header and the JPEG. Null if it is too short. */
export function parseMessage(
  data: ArrayBuffer,
): { frame: number; pts: number; jpeg: Uint8Array<ArrayBuffer> } | null {
  if (data.byteLength <= HEADER) return null;
  const view = new DataView(data);
  const frame = Number(view.getBigUint64(0));
  return { frame, pts: view.getFloat64(8), jpeg: new Uint8Array(data, HEADER) };
}

/** Counts of a stream, for measurements. */
export interface VideoCounts {
  /** Pictures that have arrived. */
  received: number;
  /** Pictures that were left out, because newer ones were waiting. */
  dropped: number;
}

/** Pictures that wait to be decoded. If more arrive, the oldest is left out: a page that is too slow
 * must not fall behind, but a burst after a delay of the network loses nothing. */
const MOST_WAITING = 3;

/** The stream of a camera's pictures, until `close`. */
export class Video {
  readonly counts: VideoCounts = { received: 0, dropped: 0 };
  private socket: WebSocket | null = null;
  private timer = 0;
  private attempts = 0;
  private closed = false;
  private decoding = false;
  private readonly waiting: ArrayBuffer[] = [];

  constructor(
    private readonly camera: string,
    private readonly width: number,
    private readonly rate: number,
    private readonly show: (picture: Picture) => void,
  ) {
    this.open();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private open(): void {
    const query = { width: this.width, rate: this.rate, overlay: false };
    const socket = new WebSocket(socketAddress(`cameras/${path(this.camera)}/video`, query));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      this.attempts = 0;
      this.counts.received += 1;
      this.waiting.push(event.data);
      if (this.waiting.length > MOST_WAITING) {
        this.waiting.shift();
        this.counts.dropped += 1;
      }
      if (!this.decoding) void this.decode();
    };
    socket.onclose = () => {
      if (this.closed) return;
      this.timer = window.setTimeout(() => this.open(), Math.min(pause(this.attempts), LONGEST));
      this.attempts += 1;
    };
  }

  /** Decodes the pictures that wait, one after the other. */
  private async decode(): Promise<void> {
    this.decoding = true;
    for (let data = this.waiting.shift(); data && !this.closed; data = this.waiting.shift()) {
      const message = parseMessage(data);
      if (!message) continue;
      try {
        const image = await createImageBitmap(new Blob([message.jpeg], { type: "image/jpeg" }));
        if (this.closed) image.close();
        else this.show({ frame: message.frame, pts: message.pts, image });
      } catch {
        // A picture that cannot be decoded is left out; the next one follows.
      }
    }
    this.decoding = false;
  }
}
