// Chromium for the tests, and what every page is checked for.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../web/package.json", import.meta.url));

/** Path of Chromium; undefined without it. */
const chromium = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);

const load = (name) => {
  try {
    return require(name);
  } catch {
    return undefined;
  }
};
const playwright = load("playwright-core");

/** Why the tests cannot run; false if they can. */
export const missing =
  (!chromium && "Chromium is missing: make setup-web installs it") ||
  (!playwright && "playwright-core is missing: make setup-web installs it");

export async function launch() {
  return playwright.chromium.launch({ executablePath: chromium, args: ["--no-sandbox"] });
}

/** Opens a page, and collects what no page may cause: errors in its scripts, violations of the
 * content security policy, requests to other hosts. `faults` is empty if there was nothing. */
export async function open(browser, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // The browser logs every answer of 4xx; which ones are right is what the tests say.
    const isAnswer = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !isAnswer && !message.text().includes("WebSocket connection"))
      faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const url = request.url();
    const isOwn = new URL(url).host === new URL(address).host;
    if (!isOwn && !/^(data|blob):/.test(url)) faults.push(`request: ${url}`);
  });
  await page.goto(address);
  return { page, context, faults };
}

/** Shows a view by its fragment. */
export async function show(page, fragment) {
  await page.evaluate((to) => {
    location.hash = to;
  }, fragment);
}

/** Checks the page with axe; fails with each rule that is violated, and where. */
export async function checkAccessibility(page, where) {
  await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  const violations = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"],
    });
    return violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join("; ")}`);
  });
  assert.deepEqual(violations, [], where);
}

/** Waits until a camera's canvas shows a picture with its own boxes. */
export async function drawn(page, camera, more = "") {
  await page.waitForSelector(`[data-camera="${camera}"] canvas[data-exact="true"]${more}`, {
    timeout: 120_000,
  });
}

/** Clicks into a camera's picture at shares of its width and height. */
export async function clickAt(page, camera, [x, y], options = {}) {
  const box = await page.locator(`[data-camera="${camera}"] canvas`).boundingBox();
  await page.mouse.click(box.x + x * box.width, box.y + y * box.height, options);
}
