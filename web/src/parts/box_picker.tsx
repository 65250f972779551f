// A picture in which a box can be drawn around a person, by the mouse or by fields.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Box } from "../api/types";

interface Props {
  file: File;
  box: Box | null;
  onBox(box: Box): void;
}

const FIELDS = ["Left", "Top", "Width", "Height"];

export function BoxPicker({ file, box, onBox }: Props) {
  const [source, setSource] = useState<{ url: string; size: [number, number] } | null>(null);
  const start = useRef<[number, number] | null>(null);
  useEffect(() => {
    const url = URL.createObjectURL(file);
    const image = new Image();
    image.onload = () => setSource({ url, size: [image.naturalWidth, image.naturalHeight] });
    image.onerror = () => setSource(null);
    image.src = url;
    return () => URL.revokeObjectURL(url);
  }, [file]);
  if (!source) return null;
  const [width, height] = source.size;
  const place = (event: PointerEvent): [number, number] => {
    const svg = event.currentTarget as SVGSVGElement;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      svg.getScreenCTM()?.inverse(),
    );
    return [Math.min(Math.max(at.x, 0), width), Math.min(Math.max(at.y, 0), height)];
  };
  const drag = (event: PointerEvent) => {
    if (!start.current) return;
    const [[ax, ay], [bx, by]] = [start.current, place(event)];
    onBox([Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)]);
  };
  const shown = box ?? [0, 0, width, height];
  return (
    <>
      <svg
        class="picker"
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        aria-label="the picture"
        onPointerDown={(e) => {
          e.preventDefault();
          e.currentTarget.setPointerCapture(e.pointerId);
          start.current = place(e);
        }}
        onPointerMove={drag}
        onPointerUp={() => {
          start.current = null;
        }}
      >
        <image href={source.url} width={width} height={height} />
        {box && <rect x={box[0]} y={box[1]} width={box[2]} height={box[3]} />}
      </svg>
      <fieldset class="row boxfields">
        <legend class="hidden">Box in pixels of the picture</legend>
        {FIELDS.map((text, i) => (
          <label key={text}>
            {text}
            <input
              type="number"
              min="0"
              value={Math.round(shown[i] ?? 0)}
              onChange={(e) => onBox(shown.with(i, Number(e.currentTarget.value)) as Box)}
            />
          </label>
        ))}
      </fieldset>
    </>
  );
}
