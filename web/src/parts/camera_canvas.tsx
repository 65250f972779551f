// The live picture of a camera in a canvas. Pictures are requested and painted only while the canvas
// is on the screen.

import { useEffect, useRef, useState } from "preact/hooks";
import { type Picture, Video } from "../api/video";
import { paint } from "../draw/scene";
import { type LiveCamera, liveCamera } from "../live_cameras";
import { settings } from "../settings";

interface Props {
  camera: string;
  /** Largest width in pixels of the pictures that are requested. */
  width: number;
  /** Most pictures per second. */
  rate: number;
  /** Shape that is being edited, as `zones/door`, and is not painted. */
  hidden?: string;
}

/** Size of the frame before one is known. */
const UNKNOWN: [number, number] = [640, 400];

/** Widths of pictures; few, because the service encodes a picture once for all who ask for its
 * width. */
const WIDTHS = [320, 480, 640, 960, 1280, 1920];

/** Pictures that wait to be painted; the oldest is left out if there are more. */
const MOST_NEXT = 3;

/** The smallest width with a pixel for each of the screen's. */
function stepWidth(pixels: number): number {
  return WIDTHS.find((width) => width >= pixels) ?? 1920;
}

/** Paints one camera until `close`. */
class CanvasPainter {
  private video: Video | null = null;
  private picture: Picture | null = null;
  /** Pictures to be painted next, oldest first. */
  private readonly next: Picture[] = [];
  private visible = false;
  private dirty = false;
  private request = 0;
  private shown = 0;
  private painted = 0;
  hidden: string | undefined;
  private readonly ends: (() => void)[] = [];

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly camera: LiveCamera,
    private readonly width: number,
    private readonly rate: number,
    private readonly onFirst: () => void,
  ) {
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(canvas);
    const places = new IntersectionObserver((entries) => {
      this.visible = entries.at(-1)?.isIntersecting ?? false;
      this.follow();
    });
    places.observe(canvas);
    const follow = () => this.follow();
    document.addEventListener("visibilitychange", follow);
    this.ends.push(
      () => sizes.disconnect(),
      () => places.disconnect(),
      () => document.removeEventListener("visibilitychange", follow),
      camera.onFrame(() => this.invalidate()),
      settings.watch(() => this.invalidate()),
    );
  }

  close(): void {
    for (const end of this.ends) end();
    cancelAnimationFrame(this.request);
    this.stop();
    this.picture?.image.close();
  }

  private stop(): void {
    this.video?.close();
    this.video = null;
    for (const { image } of this.next.splice(0)) image.close();
  }

  /** Asks for a new painting before the browser shows the next frame. */
  invalidate(): void {
    this.dirty = true;
    if (!this.request && this.active()) {
      this.request = requestAnimationFrame(() => {
        this.request = 0;
        if (this.dirty) this.paint();
      });
    }
  }

  private active(): boolean {
    return this.visible && !document.hidden;
  }

  /** Opens the stream of pictures, or closes it while nobody sees them. */
  private follow(): void {
    if (this.active() && !this.video) {
      const width = Math.min(this.width, stepWidth(this.canvas.width));
      this.video = new Video(this.camera.name, width, this.rate, (p) => this.show(p));
      this.invalidate();
    } else if (!this.active() && this.video) {
      this.stop();
    }
  }

  private show(picture: Picture): void {
    if (!this.picture) this.onFirst();
    this.next.push(picture);
    if (this.next.length > MOST_NEXT) this.next.shift()?.image.close();
    this.shown += 1;
    this.invalidate();
  }

  /** Takes the next picture, if there is one: one for each frame of the screen. */
  private advance(): void {
    const picture = this.next.shift();
    if (!picture) return;
    this.picture?.image.close();
    this.picture = picture;
    this.painted += 1;
  }

  private resize(): void {
    const { canvas } = this;
    const ratio = window.devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    this.invalidate();
  }

  private paint(): void {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    this.dirty = false;
    this.advance();
    if (this.next.length > 0) this.invalidate();
    const { camera, picture } = this;
    // Boxes belong to the picture that is shown; without pictures the newest ones are painted.
    const event = picture ? camera.eventOf(picture.frame) : camera.frames.at(-1);
    paint(
      context,
      {
        image: picture?.image ?? null,
        frame: camera.frameSize() ?? UNKNOWN,
        event,
        past: camera.frames,
        shapes: camera.shapes.get(),
        occupancy: (zone) => camera.occupancy(zone),
        counts: (line) => camera.counts(line),
        isAlarmed: (zone) => camera.isAlarmed(zone),
        show: settings.get().show,
        hidden: this.hidden,
      },
      window.devicePixelRatio,
    );
    // For measurements and tests.
    const { dataset } = this.canvas;
    dataset.frame = String(picture?.frame ?? 0);
    dataset.boxes = String(event?.tracks.length ?? 0);
    dataset.exact = String(picture !== null && event?.frame === picture.frame);
    dataset.drawn = String(this.shown);
    dataset.painted = String(this.painted);
    dataset.received = String(this.video?.counts.received ?? 0);
  }
}

export function CameraCanvas({ camera, width, rate, hidden }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const painter = useRef<CanvasPainter | null>(null);
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!canvas.current) return;
    setShown(false);
    const made = new CanvasPainter(canvas.current, liveCamera(camera), width, rate, () =>
      setShown(true),
    );
    painter.current = made;
    return () => made.close();
  }, [camera, width, rate]);
  useEffect(() => {
    if (!painter.current) return;
    painter.current.hidden = hidden;
    painter.current.invalidate();
  }, [hidden]);
  return (
    <>
      <canvas ref={canvas} role="img" aria-label={`live picture of ${camera}`} />
      {!shown && <span class="waiting">no picture yet</span>}
    </>
  );
}
