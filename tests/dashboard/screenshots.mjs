// Makes the pictures of docs/guide/dashboard.md: node tests/dashboard/screenshots.mjs FOLDER. Needs
// ffmpeg. The cameras play the sample clip from different places.

import { spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clickAt, drawn, launch, missing, open, show } from "./browser.mjs";
import { CLIP, Service, until } from "./service.mjs";

const folder = process.argv[2] ?? "docs/images";
if (missing) throw new Error(missing);
const clips = mkdtempSync(join(tmpdir(), "twintrack-clips-"));
const SHAPES = {
  gate: `[cameras.gate.zones.left]
points = [[0, 100], [180, 100], [250, 420], [0, 420]]
[cameras.gate.zones.door]
points = [[545, 235], [700, 235], [700, 420], [545, 420]]
limit = 2
[cameras.gate.lines.path]
points = [[200, 150], [560, 560]]
`,
};
const cameras = ["gate", "yard", "door", "hall"].map((name, i) => {
  const clip = join(clips, `${name}.mp4`);
  const cut = ["-v", "error", "-ss", String(9 * i), "-i", CLIP, "-c:v", "libx264", clip];
  const { status, stderr } = spawnSync("ffmpeg", cut);
  if (status !== 0) throw new Error(`ffmpeg: ${stderr}`);
  return `[cameras.${name}]\nurl = "${clip}"\nrepeat = true\n${SHAPES[name] ?? ""}`;
});
const service = await Service.start({
  cameras: cameras.join("\n"),
  more: "[history]\nembeddings = true\ncrops = true\n",
});
const browser = await launch();
const shot = async (page, name, more = {}) => {
  await page.screenshot({
    path: `${folder}/dashboard-${name}.jpg`,
    type: "jpeg",
    quality: 72,
    ...more,
  });
};
try {
  const { page } = await open(browser, service.address);
  for (const name of Object.keys({ gate: 0, yard: 0 })) await drawn(page, name);
  await until("tracks have ended", async () => {
    const { items } = await service.get("tracks?limit=200");
    return items.filter((t) => t.ended && t.crops > 1).length > 25;
  });
  await page.setViewportSize({ width: 1280, height: 1110 });
  await page.waitForTimeout(3000);
  await shot(page, "live");
  await page.setViewportSize({ width: 1280, height: 860 });

  await show(page, "#/camera/gate");
  await drawn(page, "gate");
  await page.getByRole("button", { name: "New line" }).click();
  for (const at of [
    [0.22, 0.75],
    [0.5, 0.6],
    [0.93, 0.72],
  ])
    await clickAt(page, "gate", at);
  await page.waitForTimeout(4000);
  await shot(page, "editor");
  await page.getByRole("button", { name: "Cancel" }).click();

  const { items } = await service.get("tracks?camera=gate&limit=200");
  const known = items.filter((t) => t.ended && t.crops > 2).sort((a, b) => b.duration - a.duration);
  await show(page, `#/person/${known[0].run}/${known[0].camera}/${known[0].id}`);
  await page.locator(".track .likeness").first().waitFor();
  await page.waitForTimeout(2000);
  await shot(page, "person");

  const hour = new Date(Date.now() - 600_000);
  const local = new Date(hour - hour.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  await show(page, `#/counts?camera=gate&from=${local}`);
  await page.locator(".heat canvas").waitFor();
  await page.waitForTimeout(2000);
  await shot(page, "counts", { fullPage: true });

  const phone = await open(browser, service.address, {
    viewport: { width: 390, height: 760 },
    deviceScaleFactor: 2,
    colorScheme: "dark",
  });
  await drawn(phone.page, "gate");
  await phone.page.waitForTimeout(4000);
  await shot(phone.page, "phone");
} finally {
  await browser.close();
  await service.remove();
}
