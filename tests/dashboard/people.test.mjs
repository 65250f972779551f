// The history on the dashboard: timeline, a person, search, identities, counts.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { checkAccessibility, launch, missing, open, show } from "./browser.mjs";
import { endless, once, Service, until } from "./service.mjs";

const LINE = "[cameras.hall.lines.diagonal]\npoints = [[200, 150], [560, 560]]\n";
const ZONE = "[cameras.hall.zones.left]\npoints = [[0, 100], [180, 100], [250, 420], [0, 420]]\n";
// The clip once, as fast as possible; a second camera keeps the service running.
const CAMERAS = once("hall") + LINE + ZONE + endless("gate");
const HISTORY =
  "[history]\nembeddings = true\ncrops = true\n[multi_camera]\ndelay = 0.5\nprobability = 0.2\n";

describe("people", { skip: missing, concurrency: false }, () => {
  let service;
  let browser;
  let page;
  let faults;

  before(async () => {
    service = await Service.start({ cameras: CAMERAS, more: HISTORY });
    browser = await launch();
    ({ page, faults } = await open(browser, service.address));
    await until(
      "the clip has been played",
      async () => {
        const { cameras } = await service.get("cameras");
        return cameras.find((c) => c.name === "hall")?.state === "ended";
      },
      240,
    );
    await until("its tracks are stored", async () => {
      const { items } = await service.get("tracks?camera=hall&limit=200");
      return items.length > 10 && items.every((t) => t.ended);
    });
  });
  after(async () => {
    await browser?.close();
    await service?.remove();
  });

  const found = async (pattern) => page.locator("#found").getByText(pattern).waitFor();

  test("the timeline lists tracks with their crops, filters and pages", async () => {
    await show(page, "#/tracks?camera=hall");
    await found(/^\d+ shown/);
    const all = (await service.get("tracks?camera=hall&limit=200")).items;
    const cards = page.locator(".track");
    const listed = async () => (await cards.count()) === Math.min(all.length, 48);
    await until("all are listed", listed);
    await until("a crop is shown", () =>
      page
        .locator(".track img")
        .first()
        .evaluate((i) => i.complete && i.naturalWidth > 5),
    );
    await checkAccessibility(page, "tracks");
    // Each filter gives what the service gives for it.
    const long = all.filter((t) => t.duration >= 10).length;
    assert.ok(long > 0 && long < all.length);
    await page.getByLabel("At least (s)").fill("10");
    await page.keyboard.press("Tab");
    await until("only long ones", async () => (await cards.count()) === long);
    await page.getByLabel("Zone").fill("left");
    await page.keyboard.press("Tab");
    const { items } = await service.get("tracks?camera=hall&zone=left&min_duration=10&limit=200");
    assert.ok(items.length > 0 && items.length < long);
    await until("only those in the zone", async () => (await cards.count()) === items.length);
    await show(page, "#/tracks?camera=hall&from=2020-01-01T00:00&to=2020-01-02T00:00");
    await page.getByText("No tracks match the filters.").waitFor();
  });

  test("a person's page has path, crops and similar people", async () => {
    await show(page, "#/tracks?camera=hall");
    await found(/^\d+ shown/);
    const { items } = await service.get("tracks?camera=hall&limit=200");
    const longest = items.filter((t) => t.crops > 0).sort((a, b) => b.duration - a.duration)[0];
    await page.locator(`.track[data-track="${longest.id}"] a`).click();
    await page.getByRole("heading", { name: `Track ${longest.id}`, level: 1 }).waitFor();
    const path = page.locator("svg.path polyline");
    await path.waitFor({ state: "attached" });
    assert.ok((await path.getAttribute("points")).split(" ").length > 2);
    await until("crops are shown", () =>
      page.locator(".views img").evaluateAll((all) => all.some((i) => i.naturalWidth > 5)),
    );
    const similar = page.locator(".track .likeness");
    await similar.first().waitFor();
    assert.match(await similar.first().textContent(), /\d+ % similar|distance/);
    await checkAccessibility(page, "person");
  });

  test("a person's page has the other tracks of that person", async () => {
    const all = async () => (await service.get("tracks?limit=200")).items;
    const others = (tracks, t) => tracks.filter((o) => o.person === t.person && o !== t);
    const returned = (tracks) =>
      tracks.find((t) => t.person !== undefined && others(tracks, t).length > 0);
    const track = await until("a person has two tracks", async () => returned(await all()));
    await show(page, `#/person/${track.run}/${track.camera}/${track.id}`);
    const section = page.locator("#same-person");
    await section.getByText(`assigned to person ${track.person}`).waitFor();
    await section.locator(".track").first().waitFor();
    await section.getByRole("link", { name: "All of them" }).click();
    assert.equal(await page.getByLabel("Person").inputValue(), String(track.person));
    await until("only tracks of the person are listed", async () => {
      const wanted = (await service.get(`tracks?person=${track.person}&limit=48`)).items.length;
      return wanted > 1 && (await page.locator(".track").count()) === wanted;
    });
  });

  test("a picture finds the person in it", async () => {
    const { items } = await service.get("tracks?camera=hall&limit=200");
    const track = items.filter((t) => t.crops > 0).sort((a, b) => b.hits - a.hits)[0];
    const crop = await fetch(`${service.address}api/v1/crops/${track.crop}`);
    const picture = Buffer.from(await crop.arrayBuffer());
    await show(page, "#/search");
    const file = { name: "person.jpg", mimeType: "image/jpeg", buffer: picture };
    await page.locator("#picture").setInputFiles(file);
    await found(/^\d+ found/);
    // The track itself is among the first.
    const first = await page
      .locator(".track")
      .evaluateAll((all) => all.slice(0, 3).map((t) => Number(t.dataset.track)));
    assert.ok(first.includes(track.id), `${track.id} in ${first}`);
    await checkAccessibility(page, "search");

    // Dropped instead of chosen.
    await show(page, "#/");
    await show(page, "#/search");
    await page.locator(".drop").waitFor();
    const data = await page.evaluateHandle(
      async ([bytes]) => {
        const transfer = new DataTransfer();
        const blob = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
        transfer.items.add(new File([blob], "person.jpg", { type: "image/jpeg" }));
        return transfer;
      },
      [picture.toString("base64")],
    );
    await page.dispatchEvent(".drop", "drop", { dataTransfer: data });
    await found(/^\d+ found/);

    // A whole frame has several people: one is chosen by a box.
    await until("several people are in the picture", async () => {
      const { cameras } = await service.get("cameras");
      return cameras.find((c) => c.name === "gate").present > 3;
    });
    const frame = await fetch(`${service.address}api/v1/cameras/gate/picture.jpg?overlay=false`);
    const buffer = Buffer.from(await frame.arrayBuffer());
    await page.locator("#picture").setInputFiles({ ...file, buffer });
    const alert = await page
      .getByRole("alert")
      .filter({ hasText: /people/ })
      .textContent();
    const box = alert.match(/at (\d+,\d+,\d+,\d+)/)[1].split(",");
    for (const [i, label] of ["Left", "Top", "Width", "Height"].entries()) {
      await page.getByLabel(label).fill(box[i]);
      await page.keyboard.press("Tab");
    }
    await page.getByRole("button", { name: "Search again" }).click();
    await found(/^\d+ found/);
    const text = { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("x") };
    await page.locator("#picture").setInputFiles(text);
    await page.getByText("it must be a JPEG or PNG file").waitFor();
  });

  test("an identity is enrolled, renamed and deleted", async () => {
    const { items } = await service.get("tracks?camera=hall&limit=200");
    const track = items.filter((t) => t.crops > 0).sort((a, b) => b.hits - a.hits)[0];
    await show(page, `#/person/${track.run}/${track.camera}/${track.id}`);
    await page.getByRole("button", { name: "Enrol this person" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel(/^Name/).fill("Ada");
    await dialog.getByRole("button", { name: "Enrol" }).click();
    await dialog.waitFor({ state: "detached" });
    await show(page, "#/identities");
    await page.locator('[data-identity="Ada"]').waitFor();
    await checkAccessibility(page, "identities");
    await page.getByRole("button", { name: "rename Ada" }).click();
    await dialog.getByLabel("New name").fill("Ada L.");
    await dialog.getByRole("button", { name: "Rename" }).click();
    const row = page.locator('[data-identity="Ada L."]');
    await row.waitFor();
    await page.getByRole("button", { name: "delete Ada L." }).click();
    // Escape changes nothing.
    await dialog.waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    await row.waitFor();
    await page.getByRole("button", { name: "delete Ada L." }).click();
    await dialog.getByRole("button", { name: "Delete" }).click();
    await row.waitFor({ state: "detached" });
    await page.getByText(/Ada L\. is deleted: \d+ embedding/).waitFor();
    assert.deepEqual((await service.get("identities")).items, []);
  });

  test("counts are those of the service, and the heat map has heat", async () => {
    await show(page, "#/counts?camera=hall");
    const line = page.locator("figure.chart", { hasText: "Line diagonal" });
    await line.waitFor();
    await line.locator("summary").click();
    const cells = await line
      .locator("tbody tr")
      .evaluateAll((rows) =>
        rows.map((r) => [...r.querySelectorAll("td")].map((d) => Number(d.textContent))),
      );
    const total = cells.flat().reduce((a, b) => a + b, 0);
    const events = (await service.get("events?camera=hall&kind=line&limit=200")).items;
    assert.equal(total, events.filter((e) => e.name === "diagonal").length);
    assert.ok(total > 5);
    const heat = page.locator(".heat canvas");
    await heat.waitFor();
    const opaque = () =>
      heat.evaluate((c) => {
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return data.filter((v, i) => i % 4 === 3 && v > 0).length;
      });
    assert.ok((await opaque()) > 50);
    await checkAccessibility(page, "counts");
    const csv = page.getByRole("link", { name: "CSV" });
    const download = page.waitForEvent("download");
    await csv.click();
    assert.match((await download).suggestedFilename(), /csv$/);
  });

  test("no page caused an error, broke the policy or asked another host", () => {
    assert.deepEqual(faults, []);
  });
});
