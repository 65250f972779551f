// The shape that is edited, over the picture: points are dragged by the mouse or a finger, and moved
// by the keyboard.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Point, ShapeKind } from "../api/types";
import { inward } from "../draw/geometry";
import type { Draft, Step } from "./draft";
import { isClosed } from "./shape";

interface Props {
  kind: ShapeKind;
  draft: Draft;
  /** Whether points are added at the end, as for a shape that is new. */
  fresh: boolean;
  frame: [width: number, height: number];
  apply(step: Step): void;
}

/** Shares of the frame that an arrow key moves a point; with Shift, ten times as much. */
const NUDGE = 0.0025;
const ARROWS: Record<string, Point> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

export function ShapeCanvas({ kind, draft, fresh, frame, apply }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const dragging = useRef(false);
  // Frame pixels per CSS pixel, so that points have the same size on every screen.
  const [unit, setUnit] = useState(1);
  const [width, height] = frame;
  const closed = isClosed(kind);
  const { points, selected } = draft;
  useEffect(() => {
    const element = svg.current;
    if (!element) return;
    const sizes = new ResizeObserver(() =>
      setUnit(Math.max(width / element.clientWidth, height / element.clientHeight)),
    );
    sizes.observe(element);
    return () => sizes.disconnect();
  }, [width, height]);
  // The selected point has the focus, so that the arrow keys move it.
  useEffect(() => {
    if (selected === null) return;
    svg.current?.querySelector<SVGElement>(`[data-index="${selected}"]`)?.focus();
  }, [selected, points.length]);

  const place = (event: PointerEvent): Point => {
    const matrix = svg.current?.getScreenCTM()?.inverse();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    return [at.x / width, at.y / height];
  };
  const grab = (event: PointerEvent) => {
    dragging.current = true;
    svg.current?.setPointerCapture(event.pointerId);
  };
  const onPoint = (event: PointerEvent, index: number) => {
    event.stopPropagation();
    event.preventDefault();
    if (event.button !== 0) return;
    grab(event);
    apply({ do: "grab", index });
  };
  const onPicture = (event: PointerEvent) => {
    if (event.button !== 0) return;
    event.preventDefault();
    grab(event);
    const at = place(event);
    apply(fresh ? { do: "append", at } : { do: "insert", at, closed });
  };
  const onKey = (event: KeyboardEvent, index: number) => {
    const by = ARROWS[event.key];
    const far = NUDGE * (event.shiftKey ? 10 : 1);
    if (by) apply({ do: "nudge", by: [by[0] * far, by[1] * far] });
    else if (event.key === "Delete" || event.key === "Backspace") apply({ do: "remove", index });
    else if (event.key === "Enter" || event.key === "+") apply({ do: "split", closed });
    else return;
    event.preventDefault();
  };

  const pixels = points.map(([x, y]): Point => [x * width, y * height]);
  const text = pixels.map((p) => p.join(",")).join(" ");
  const arrow = kind === "lines" ? inward(pixels) : null;
  const tip = (length: number): Point =>
    arrow
      ? [
          arrow.at[0] + arrow.towards[0] * length * unit,
          arrow.at[1] + arrow.towards[1] * length * unit,
        ]
      : [0, 0];
  return (
    <svg
      ref={svg}
      class={`editor ${kind}`}
      viewBox={`0 0 ${width} ${height}`}
      onPointerDown={onPicture}
      onPointerMove={(e) => dragging.current && apply({ do: "drag", at: place(e) })}
      onPointerUp={() => {
        dragging.current = false;
      }}
      onPointerCancel={() => {
        dragging.current = false;
      }}
      onContextMenu={(e) => e.preventDefault()}
    >
      <title>Shape that is being edited</title>
      {closed ? (
        <polygon class="outline" points={text} />
      ) : (
        <polyline class="outline" points={text} />
      )}
      {arrow && (
        <g class="arrow">
          <line x1={arrow.at[0]} y1={arrow.at[1]} x2={tip(26)[0]} y2={tip(26)[1]} />
          <circle cx={tip(26)[0]} cy={tip(26)[1]} r={4 * unit} />
          <text x={tip(42)[0]} y={tip(42)[1]} font-size={13 * unit}>
            in
          </text>
        </g>
      )}
      {pixels.map(([x, y], i) => (
        // biome-ignore lint/a11y/useSemanticElements: SVG has no buttons
        <circle
          key={i}
          data-index={i}
          class={i === selected ? "point selected" : "point"}
          cx={x}
          cy={y}
          r={8 * unit}
          tabIndex={0}
          role="button"
          aria-label={`point ${i + 1} of ${points.length}, ${percent(x / width)} from the left, ${percent(y / height)} from the top`}
          onPointerDown={(e) => onPoint(e, i)}
          onContextMenu={() => apply({ do: "remove", index: i })}
          onFocus={() => i !== selected && apply({ do: "select", index: i })}
          onKeyDown={(e) => onKey(e, i)}
        />
      ))}
    </svg>
  );
}
