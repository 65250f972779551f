// Charts over time, in SVG: bars and lines. Each has a table with the same numbers.

import { useEffect, useRef, useState } from "preact/hooks";
import { clock, moment } from "../format";
import { roundUp } from "../statistics";
import { Scroll } from "./scroll";

export interface Series {
  name: string;
  /** Class of its colour. */
  tone: "tone-1" | "tone-2" | "tone-3";
  kind: "bars" | "line";
  /** A value for each bucket. */
  values: number[];
}

interface Props {
  title: string;
  /** Starts of the buckets. */
  starts: string[];
  series: Series[];
}

const [HEIGHT, LEFT, BOTTOM, TOP] = [150, 34, 22, 8];

const shown = (value: number) => String(Number(value.toFixed(2)));

export function Chart({ title, starts, series }: Props) {
  const [width, setWidth] = useState(480);
  const figure = useRef<HTMLElement>(null);
  useEffect(() => {
    if (!figure.current) return;
    const sizes = new ResizeObserver(() => setWidth(figure.current?.clientWidth ?? 480));
    sizes.observe(figure.current);
    return () => sizes.disconnect();
  }, []);
  const most = roundUp(Math.max(1, ...series.flatMap((s) => s.values)));
  const slot = (width - LEFT) / Math.max(starts.length, 1);
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
  const bars = series.filter((s) => s.kind === "bars");
  const every = Math.max(1, Math.ceil(starts.length / (width / 90)));
  const isLong =
    starts.length > 1 && Date.parse(starts[1] ?? "") - Date.parse(starts[0] ?? "") >= 14_400_000;
  return (
    <figure class="chart card padded">
      <figcaption>
        <strong>{title}</strong>
        {series.map((s) => (
          <span key={s.name} class={`legend ${s.tone}`}>
            {s.name}
          </span>
        ))}
      </figcaption>
      <section ref={figure}>
        <svg
          width={width}
          height={HEIGHT}
          role="img"
          aria-label={`${title}; the table has the numbers`}
        >
          {[0, most / 2, most].map((value) => (
            <g key={value} class="axis">
              <line x1={LEFT} x2={width} y1={y(value)} y2={y(value)} />
              <text x={LEFT - 5} y={y(value) + 4} text-anchor="end">
                {shown(value)}
              </text>
            </g>
          ))}
          {starts.map((start, i) =>
            i % every === 0 ? (
              <text key={start} class="axis" x={LEFT + i * slot} y={HEIGHT - 6}>
                {isLong ? moment(start).slice(5, 16) : clock(start).slice(0, 5)}
              </text>
            ) : null,
          )}
          {bars.map((s, n) =>
            s.values.map((value, i) => (
              <rect
                key={`${s.name} ${starts[i]}`}
                class={s.tone}
                x={LEFT + i * slot + (0.1 + (0.8 * n) / bars.length) * slot}
                width={Math.max(0.5, (0.8 * slot) / bars.length)}
                y={y(value)}
                height={Math.max(0, y(0) - y(value))}
              >
                <title>{`${moment(starts[i] ?? "")}, ${s.name}: ${shown(value)}`}</title>
              </rect>
            )),
          )}
          {series
            .filter((s) => s.kind === "line")
            .map((s) => (
              <polyline
                key={s.name}
                class={s.tone}
                points={s.values.map((v, i) => `${LEFT + (i + 0.5) * slot},${y(v)}`).join(" ")}
              />
            ))}
        </svg>
      </section>
      <details>
        <summary>Table</summary>
        <Scroll label={`table of ${title}`}>
          <table>
            <thead>
              <tr>
                <th scope="col">from</th>
                {series.map((s) => (
                  <th key={s.name} scope="col">
                    {s.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {starts.map((start, i) => (
                <tr key={start}>
                  <th scope="row">{moment(start)}</th>
                  {series.map((s) => (
                    <td key={s.name}>{shown(s.values[i] ?? 0)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      </details>
    </figure>
  );
}
