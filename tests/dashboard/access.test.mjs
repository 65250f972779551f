// Logging in and out, what a viewer sees, and the dashboard below a path.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { checkAccessibility, drawn, launch, missing, open, show } from "./browser.mjs";
import { endless, Service } from "./service.mjs";

const PASSWORD = "correct horse";

describe("access", { skip: missing, concurrency: false }, () => {
  let service;
  let browser;
  const pages = [];
  const start = async (fragment = "") => {
    const opened = await open(browser, `${service.address}${fragment}`);
    pages.push(opened);
    return opened.page;
  };
  const logIn = async (page, name, password = PASSWORD) => {
    await page.getByLabel("Name").fill(name);
    await page.getByLabel("Password").fill(password);
    await page.keyboard.press("Enter");
  };

  before(async () => {
    service = await Service.start({
      cameras: endless("gate"),
      serve: 'base_path = "/watch"',
      users: [
        ["user", "add", "anna", "--role", "admin"],
        ["user", "add", "vera", "--role", "viewer"],
      ],
    });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await service?.remove();
  });

  test("the login page leads to the view that was asked for", async () => {
    const page = await start("#/settings");
    await page.waitForURL(/\/watch\/login#\/settings$/);
    await checkAccessibility(page, "login");
    await logIn(page, "anna", "wrong horse");
    await page.getByRole("alert").getByText("the name or the password is wrong").waitFor();
    await logIn(page, "anna");
    await page.waitForURL(/\/watch\/#\/settings$/);
    await page.getByText("anna (admin)").first().waitFor();
  });

  test("logging out ends the session", async () => {
    const page = await start();
    await logIn(page, "anna");
    await drawn(page, "gate");
    await show(page, "#/audit");
    await page.getByRole("cell", { name: "login", exact: true }).first().waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.waitForURL(/\/watch\/login$/);
    await page.goto(service.address);
    await page.waitForURL(/\/watch\/login$/);
    await page.getByLabel("Password").waitFor();
  });

  test("a viewer sees no controls of other roles", async () => {
    const page = await start();
    await logIn(page, "vera");
    await drawn(page, "gate");
    const views = await page.getByRole("navigation").getByRole("link").allTextContents();
    assert.deepEqual(views, ["Live", "Tracks", "Counts", "Identities", "Settings"]);
    await show(page, "#/camera/gate");
    await page.getByText("This camera has no zones, lines or masks.").waitFor();
    assert.equal(await page.getByRole("button", { name: /^New / }).count(), 0);
  });

  test("no page caused an error, broke the policy or asked another host", () => {
    assert.deepEqual(
      pages.flatMap((p) => p.faults),
      [],
    );
  });
});
