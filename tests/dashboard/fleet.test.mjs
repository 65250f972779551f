// The fleet on the dashboard: its workers and cameras, a camera that is added and removed.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { checkAccessibility, launch, missing, open, show } from "./browser.mjs";
import { CLIP, LIMIT, PROGRAM, Service, until } from "./service.mjs";

const noServer =
  spawnSync("nats-server", ["--version"]).error &&
  "nats-server is missing: make setup-test installs it";

/** A port of this machine that nobody uses. */
const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

describe("fleet", { skip: missing || noServer || false, concurrency: false }, () => {
  let folder;
  let nats;
  let url;
  let worker;
  let history;
  let browser;
  let page;
  let faults;

  const fleet = (...arguments_) => {
    const result = spawnSync(PROGRAM, ["fleet", "--nats", url, ...arguments_], LIMIT);
    assert.equal(result.status, 0, String(result.stderr));
  };

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "twintrack-fleet-"));
    const port = await freePort();
    url = `nats://127.0.0.1:${port}`;
    const settings = join(folder, "nats.conf");
    const store = JSON.stringify(join(folder, "jetstream"));
    writeFileSync(settings, `listen: "127.0.0.1:${port}"\njetstream { store_dir: ${store} }\n`);
    nats = spawn("nats-server", ["-c", settings], { stdio: "ignore" });
    const cameras = join(folder, "cameras.toml");
    const place = `url = ${JSON.stringify(CLIP)}\nrepeat = true\ntarget_fps = 1.0\n`;
    const elsewhere = `[cameras.far]\n${place}labels = ["site=south"]\npriority = 3\n`;
    writeFileSync(cameras, `[cameras.near]\n${place}${elsewhere}`);
    const applied = () =>
      spawnSync(PROGRAM, ["fleet", "--nats", url, "apply", cameras], LIMIT).status === 0;
    await until("the list is stored", applied);
    const common = `[fleet]\nnats = "${url}"\nname = "north-1"\ncapacity = 20.0\n`;
    const quick = "[embedder]\nenabled = false\n";
    worker = await Service.start({ more: `${common}${quick}` });
    history = await Service.start({ command: "history", more: `${common}[history]\n${quick}` });
    browser = await launch();
    ({ page, faults } = await open(browser, history.address));
  });
  after(async () => {
    await browser?.close();
    await history?.remove();
    await worker?.remove();
    nats?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  test("workers and cameras are listed, also a camera that no worker may have", async () => {
    await page.getByRole("link", { name: "Fleet" }).click();
    await page.locator("#workers").getByText("north-1").waitFor();
    const row = (name) => page.locator("#cameras tr").filter({ hasText: name });
    await row("near").getByText("north-1").waitFor();
    assert.match(await row("far").textContent(), /none.*site=south.*3/);
    await page.getByText("1 worker, 2 cameras, 1 of them without a worker").waitFor();
    await checkAccessibility(page, "fleet");
  });

  test("an admin adds and removes a camera", async () => {
    await show(page, "#/fleet");
    await page.getByRole("button", { name: "Add a camera" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("yard");
    await dialog.getByLabel("Address").fill("rtsp://viewer:secret@10.255.255.1/x");
    await dialog.getByRole("button", { name: "Add" }).click();
    // The list is readable for all workers, so a login is refused.
    await dialog
      .getByRole("alert")
      .getByText(/password|login/)
      .waitFor();
    await dialog.getByLabel("Address").fill("rtsp://10.255.255.1/x");
    await dialog.getByRole("button", { name: "Add" }).click();
    const row = page.locator("#cameras tr").filter({ hasText: "yard" });
    await row.getByText("rtsp://10.255.255.1/x").waitFor();
    const names = async () => (await history.get("fleet")).cameras.map((c) => c.name);
    assert.deepEqual(await names(), ["far", "near", "yard"]);
    await row.getByRole("button", { name: "Remove yard" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await row.waitFor({ state: "detached" });
    assert.deepEqual(await names(), ["far", "near"]);
    fleet("remove", "far");
    await page.getByRole("link", { name: "far" }).waitFor({ state: "detached" });
  });

  test("nothing went wrong in the page", () => {
    assert.deepEqual(faults, []);
  });
});
