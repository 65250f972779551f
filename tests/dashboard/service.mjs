// Starts `twintrack serve` for a test, with the sample clip as its cameras.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const PROGRAM = process.env.TWINTRACK ?? join(ROOT, "target/release/twintrack");
export const CLIP = join(ROOT, "samples/pets2009-s2l1.mp4");

/** Options of `spawnSync` for a command that must end. */
export const LIMIT = { timeout: 60_000, killSignal: "SIGKILL" };

/** Waits until `check` returns something; fails after `seconds`. */
export async function until(what, check, seconds = 120) {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** A running service. */
export class Service {
  /** Starts it with this configuration, after these commands of users, such as
   * `["user", "add", "anna", "--role", "admin"]`; all have the password `correct horse`.
   * `command` is `serve` or `history`. */
  static async start(options) {
    const { cameras = "", serve = "", more = "", users = [], port = 0, folder } = options;
    const { command = "serve" } = options;
    if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: make build`);
    const service = new Service();
    service.folder = folder ?? mkdtempSync(join(tmpdir(), "twintrack-dashboard-"));
    service.path = /base_path = "(.*)"/.exec(serve)?.[1] ?? "";
    const state = join(service.folder, "state");
    for (const user of users) {
      const arguments_ = [...user, "--password-stdin", "--state-dir", state];
      const input = "correct horse\n";
      const { status, stderr } = spawnSync(PROGRAM, arguments_, { ...LIMIT, input });
      if (status !== 0) throw new Error(`${user}: ${stderr}`);
    }
    const config = join(service.folder, "cameras.toml");
    writeFileSync(
      config,
      `[serve]\nlisten = "127.0.0.1:${port}"\nstate_dir = ${JSON.stringify(state)}\n${serve}\n` +
        `[detector]\nsize = "416x320"\n${more}\n${cameras}`,
    );
    const log = join(service.folder, "log");
    writeFileSync(log, "");
    service.log = () => readFileSync(log, "utf8");
    const output = command === "serve" ? ["--output", join(service.folder, "out.jsonl")] : [];
    service.process = spawn(PROGRAM, [command, "--config", config, ...output], {
      stdio: ["ignore", "ignore", openSync(log, "a")],
    });
    process.once("exit", () => service.process.kill("SIGKILL"));
    service.ended = new Promise((done) => service.process.once("exit", done));
    const found = () => /(?:metrics|of the fleet): https?:\/\/\S+?:(\d+)/.exec(service.log())?.[1];
    const started = () => {
      if (service.process.exitCode !== null) throw new Error(service.log());
      return found();
    };
    try {
      service.port = Number(await until("the service listens", started));
    } catch (error) {
      // Node would wait for it.
      service.process.kill("SIGKILL");
      throw error;
    }
    return service;
  }

  /** Address of the dashboard. */
  get address() {
    return `http://127.0.0.1:${this.port}${this.path}/`;
  }

  /** The JSON of a route, without a login. */
  async get(route) {
    const response = await fetch(`${this.address}api/v1/${route}`);
    if (!response.ok) throw new Error(`${route}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async stop() {
    this.process.kill("SIGTERM");
    const late = setTimeout(() => this.process.kill("SIGKILL"), 60_000);
    await this.ended;
    clearTimeout(late);
    if (this.process.signalCode === "SIGKILL") throw new Error(`it does not end: ${this.log()}`);
  }

  /** Stops it, and removes its files. */
  async remove() {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A camera that plays the clip again and again at its own frame rate. */
export const endless = (name, more = "") =>
  `[cameras.${name}]\nurl = ${JSON.stringify(CLIP)}\nrepeat = true\n${more}\n`;
/** A camera that plays the clip once, as fast as possible. */
export const once = (name) =>
  `[cameras.${name}]\nurl = ${JSON.stringify(CLIP)}\nrealtime = false\n`;
