// Live pictures, the editor of zones and lines, the keyboard, phones, light and dark, and the
// connection.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { checkAccessibility, clickAt, drawn, launch, missing, open, show } from "./browser.mjs";
import { endless, Service, until } from "./service.mjs";

const ZONE = "[cameras.gate.zones.left]\npoints = [[0, 100], [180, 100], [250, 420], [0, 420]]\n";
const CAMERAS = endless("gate", ZONE) + endless("yard");

describe("live", { skip: missing, concurrency: false }, () => {
  let service;
  let browser;
  const pages = [];
  const start = async (fragment = "", options = {}) => {
    const opened = await open(browser, `${service.address}#/${fragment}`, options);
    pages.push(opened);
    return opened.page;
  };

  before(async () => {
    service = await Service.start({ cameras: CAMERAS });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await service?.remove();
  });

  test("every camera is drawn with the boxes of its own frame", async () => {
    const page = await start();
    for (const camera of ["gate", "yard"]) {
      await drawn(page, camera);
      const tile = page.locator(`article[data-camera="${camera}"]`);
      const canvas = tile.locator("canvas");
      const frame = () => canvas.evaluate((c) => Number(c.dataset.frame));
      const first = await frame();
      await until("a later frame is drawn", async () => (await frame()) > first + 5);
      // As many pixels as the screen has, and a picture in them.
      const colours = await canvas.evaluate((c) => {
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        const all = new Set();
        for (let i = 0; i < data.length; i += 4000) all.add(`${data[i]} ${data[i + 1]}`);
        return { all: all.size, exact: c.width === Math.round(c.clientWidth * devicePixelRatio) };
      });
      assert.ok(colours.all > 20, JSON.stringify(colours));
      assert.ok(colours.exact);
      await tile.getByText("online").waitFor();
    }
    await page.getByText("2 of 2 cameras online").waitFor();
  });

  test("a canvas has the screen's own pixels", async () => {
    const page = await start("", { deviceScaleFactor: 2 });
    await drawn(page, "gate");
    const ratio = await page
      .locator('[data-camera="gate"] canvas')
      .evaluate((c) => c.width / c.clientWidth);
    assert.ok(Math.abs(ratio - 2) < 0.01, `${ratio}`);
  });

  test("a camera that is not on the screen is not drawn until it is", async () => {
    const page = await start("", { viewport: { width: 390, height: 560 } });
    await drawn(page, "gate");
    const yard = page.locator('[data-camera="yard"] canvas');
    assert.equal(await yard.evaluate((c) => c.dataset.frame), undefined);
    await yard.scrollIntoViewIfNeeded();
    await drawn(page, "yard");
    // The first one stops when it has left the screen.
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    const gate = page.locator('[data-camera="gate"] canvas');
    if (await gate.evaluate((c) => c.getBoundingClientRect().bottom < 0)) {
      const drawnOfGate = () => gate.evaluate((c) => c.dataset.drawn);
      // The browser reports late that it has left.
      await until("it stops", async () => {
        const before = await drawnOfGate();
        await new Promise((done) => setTimeout(done, 1000));
        return (await drawnOfGate()) === before;
      });
      const first = await drawnOfGate();
      const later = () => yard.evaluate((c) => Number(c.dataset.drawn));
      const now = await later();
      await until("the other one goes on", async () => (await later()) > now + 10);
      const last = await drawnOfGate();
      assert.ok(Number(last) - Number(first) <= 2, `${first} ${last}`);
    }
  });

  test("a line is drawn by the mouse, and counts", async () => {
    const page = await start("camera/gate");
    await drawn(page, "gate");
    await page.getByRole("button", { name: "New line" }).click();
    const form = page.getByRole("form", { name: "Edit the line" });
    const save = form.getByRole("button", { name: "Save" });
    assert.ok(await save.isDisabled());
    await clickAt(page, "gate", [0.26, 0.26]);
    await clickAt(page, "gate", [0.5, 0.5]);
    await clickAt(page, "gate", [0.73, 0.97]);
    await form.getByLabel("Name").fill("path");
    // Undo takes the last point back; the middle one is removed by the right button.
    const points = page.locator("svg.editor circle.point");
    assert.equal(await points.count(), 3);
    await points.nth(2).focus();
    await page.keyboard.press("Control+z");
    await until("undone", async () => (await points.count()) === 2);
    await form.getByRole("button", { name: "Redo" }).click();
    await until("done again", async () => (await points.count()) === 3);
    await points.nth(1).click({ button: "right" });
    await until("removed", async () => (await points.count()) === 2);
    await form.getByLabel("Wrong direction").selectOption("out");
    await save.click();
    const row = page.locator('[data-shape="lines/path"]');
    await row.waitFor();
    // People cross it: both the list and the events say so.
    await row.getByText(/[1-9]\d* (in|out)/).waitFor({ timeout: 120_000 });
    await page
      .getByText(/crosses path (inwards|outwards)/)
      .first()
      .waitFor({ timeout: 120_000 });
    const { lines } = await service.get("cameras/gate/shapes");
    assert.equal(lines.path.origin, "drawn");
    assert.equal(lines.path.wrong, "out");
    for (const [i, wanted] of [0.26, 0.26, 0.73, 0.97].entries()) {
      const is = lines.path.points.flat()[i];
      assert.ok(Math.abs(is - wanted) < 0.01, `${lines.path.points}`);
    }
    // Its points are dragged to another place.
    await row.getByRole("button", { name: "edit line path" }).click();
    const box = await page.locator('[data-camera="gate"] canvas').boundingBox();
    const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
    await page.mouse.move(...at([0.73, 0.97]));
    await page.mouse.down();
    await page.mouse.move(...at([0.6, 0.8]), { steps: 4 });
    await page.mouse.up();
    await page.getByRole("button", { name: "Save" }).click();
    await until("moved", async () => {
      const [, last] = (await service.get("cameras/gate/shapes")).lines.path.points;
      return Math.abs(last[0] - 0.6) < 0.01 && Math.abs(last[1] - 0.8) < 0.01;
    });
    await row.getByRole("button", { name: "delete line path" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await row.waitFor({ state: "detached" });
    assert.deepEqual((await service.get("cameras/gate/shapes")).lines, {});
  });

  test("a zone is made by the keyboard alone, and errors name the field", async () => {
    const page = await start("camera/yard");
    await drawn(page, "yard");
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    // The skip link is the first stop.
    await press("Tab");
    await until("the skip link has the focus", () =>
      page.evaluate(() => document.activeElement?.textContent === "Skip to the content"),
    );
    await press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement?.tagName), "MAIN");
    const focused = (text) =>
      page.evaluate((t) => document.activeElement?.textContent?.trim() === t, text);
    const tabTo = async (text) => {
      for (let i = 0; i < 40 && !(await focused(text)); i++) await press("Tab");
      assert.ok(await focused(text), text);
    };
    await tabTo("New zone");
    await press("Enter");
    const points = page.locator("svg.editor circle.point");
    await tabTo("Add point");
    await press("Enter");
    await until("a point has the focus", () =>
      page.evaluate(() => document.activeElement?.getAttribute("data-index") === "0"),
    );
    await press("Shift+ArrowLeft", "Shift+ArrowUp", "Enter", "Shift+ArrowDown");
    await press("Enter", "Shift+ArrowDown", "Shift+ArrowDown", "ArrowLeft");
    await until("three points", async () => (await points.count()) === 3);
    // Escape gives up.
    await press("Escape");
    await points.first().waitFor({ state: "detached" });
    await until("the focus is back", () => focused("New zone"));
    await press("Enter");
    await tabTo("Add point");
    await press("Enter");
    await until("a point has the focus again", () =>
      page.evaluate(() => document.activeElement?.getAttribute("data-index") === "0"),
    );
    await press("Shift+ArrowLeft", "Enter", "Shift+ArrowDown", "Enter");
    await until("three points", async () => (await points.count()) === 3);
    await press("Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight");
    const form = page.getByRole("form", { name: "Edit the zone" });
    await form.getByLabel("Name").focus();
    await press("Control+a");
    await page.keyboard.type("desk/1");
    await press("Enter");
    await form.getByRole("alert").getByText("name").waitFor();
    await press("Control+a");
    await page.keyboard.type("desk");
    await press("Enter");
    await page.locator('[data-shape="zones/desk"]').waitFor();
    const { zones } = await service.get("cameras/yard/shapes");
    assert.equal(zones.desk.points.length, 3);
  });

  test("zones of the configuration are shown, and not changed", async () => {
    const page = await start("camera/gate");
    const row = page.locator('[data-shape="zones/left"]');
    await row.getByText("from the configuration").waitFor();
    assert.equal(await row.getByRole("button").count(), 0);
    await row.getByText(/\d+ inside/).waitFor();
  });

  test("pages that need the history say how to turn it on", async () => {
    const page = await start();
    for (const view of ["tracks", "search", "counts", "identities"]) {
      await show(page, `#/${view}`);
      await page.getByText("[history]").first().waitFor();
    }
  });

  test("nothing is wider than a phone, and axe finds nothing, light and dark", async () => {
    for (const [colorScheme, width] of [
      ["light", 360],
      ["dark", 1280],
    ]) {
      const page = await start("", { colorScheme, viewport: { width, height: 740 } });
      for (const view of ["", "camera/gate", "tracks", "settings", "audit"]) {
        await show(page, `#/${view}`);
        await page.locator("main h1, main h2").first().waitFor();
        const wide = await page.evaluate(() => document.scrollingElement.scrollWidth);
        assert.ok(wide <= width, `${view || "grid"}: ${wide} > ${width}`);
        await checkAccessibility(page, `${view || "grid"}, ${colorScheme}`);
      }
      await show(page, "#/camera/gate");
      await drawn(page, "gate");
      await page.getByRole("button", { name: "New zone" }).click();
      await page.getByRole("button", { name: "Add point" }).click();
      await checkAccessibility(page, `editor, ${colorScheme}`);
    }
  });

  test("the theme is chosen, and kept", async () => {
    const page = await start("settings");
    const dark = () =>
      page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g)[0] < 100);
    assert.equal(await dark(), false);
    await page.getByRole("combobox", { name: "Theme" }).selectOption("dark");
    assert.equal(await dark(), true);
    await page.reload();
    await page.getByText("this machine (admin)").waitFor();
    assert.equal(await dark(), true);
  });

  test("a lost connection is shown, and made again", async () => {
    const page = await start();
    await drawn(page, "gate");
    const { port, folder } = service;
    await service.stop();
    await page.getByText("The connection to the service is lost").waitFor();
    service = await Service.start({ cameras: CAMERAS, port, folder });
    await page.getByText("The connection to the service is lost").waitFor({ state: "detached" });
    const canvas = page.locator('[data-camera="gate"] canvas');
    const count = () => canvas.evaluate((c) => Number(c.dataset.drawn));
    const now = await count();
    await until("pictures go on", async () => (await count()) > now + 5);
    await drawn(page, "gate");
  });

  test("no page caused an error, broke the policy or asked another host", () => {
    assert.ok(pages.length > 0);
    assert.deepEqual(
      pages.flatMap((p) => p.faults),
      [],
    );
  });
});
