// Measures the dashboard: size of its files, first paint, and dropped pictures with four cameras at
// 10 frames/s (the sample clip). `make bench-dashboard`; SECONDS=60 is how long pictures are counted.

import { readdirSync, statSync } from "node:fs";
import { cpus } from "node:os";
import { drawn, launch, missing, open } from "./browser.mjs";
import { endless, Service } from "./service.mjs";

const SECONDS = Number(process.env.SECONDS ?? 60);
const CAMERAS = ["c1", "c2", "c3", "c4"];
const say = (text) => process.stdout.write(`${text}\n`);

if (missing) throw new Error(missing);
const assets = new URL("../../web/dist/assets/", import.meta.url);
const size = (ending) =>
  readdirSync(assets)
    .filter((name) => name.endsWith(ending))
    .reduce((sum, name) => sum + statSync(new URL(name, assets)).size, 0) / 1024;
say(`${cpus().length} x ${cpus()[0].model}`);
say(`files of the dashboard, compressed: ${size(".gz").toFixed(1)} KiB`);

const service = await Service.start({ cameras: CAMERAS.map((name) => endless(name)).join("\n") });
const browser = await launch();
try {
  const paints = [];
  for (let i = 0; i < 5; i++) {
    const { page, context } = await open(browser, service.address);
    await page.getByRole("heading", { name: "Live" }).waitFor();
    const paint = await page.evaluate(() =>
      performance.getEntriesByName("first-contentful-paint").map((e) => e.startTime),
    );
    paints.push(...paint);
    await context.close();
  }
  paints.sort((a, b) => a - b);
  const [median] = paints.slice(2);
  say(
    `first contentful paint, 5 times: median ${median.toFixed(0)} ms, most ${paints.at(-1).toFixed(0)} ms`,
  );

  const { page } = await open(browser, service.address);
  for (const camera of CAMERAS) await drawn(page, camera);
  const counts = () =>
    page.evaluate(() =>
      [...document.querySelectorAll("[data-camera]")].map((tile) => {
        const { drawn, painted, received, frame } = tile.querySelector("canvas").dataset;
        return [tile.dataset.camera, ...[drawn, painted, received, frame].map(Number)];
      }),
    );
  const tracked = async () =>
    new Map((await service.get("cameras")).cameras.map((c) => [c.name, c.tracked]));
  const [first, before] = [await counts(), await tracked()];
  await page.waitForTimeout(1000 * SECONDS);
  const [last, after] = [await counts(), await tracked()];
  for (const [i, [camera, drawnFirst, paintedFirst, receivedFirst]] of first.entries()) {
    const [, drawnLast, paintedLast, receivedLast] = last[i];
    const made = after.get(camera) - before.get(camera);
    say(
      `${camera}, ${SECONDS} s: frames tracked ${made}, pictures received ` +
        `${receivedLast - receivedFirst}, decoded ${drawnLast - drawnFirst}, painted ` +
        `${paintedLast - paintedFirst}`,
    );
  }
} finally {
  await browser.close();
  await service.remove();
}
