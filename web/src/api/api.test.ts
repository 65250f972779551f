import { describe, expect, test } from "vitest";
import { address, path } from "./client";
import { pause, Repetitions } from "./live";
import { Problem, parseProblem, sentence } from "./problem";
import type { LiveMessage } from "./types";
import { parseMessage } from "./video";

describe("addresses", () => {
  test("are relative, escaped, and without empty values", () => {
    const query = { camera: "a b", zone: "", from: undefined, limit: 3 };
    expect(address(`tracks/${path("r", "a/b", 7)}`, query)).toBe(
      "api/v1/tracks/r/a%2Fb/7?camera=a+b&limit=3",
    );
    expect(address("cameras")).toBe("api/v1/cameras");
  });
});

describe("problems", () => {
  test("are one sentence that names the field", () => {
    const body = JSON.stringify({
      title: "Unprocessable Entity",
      code: "invalid-field",
      detail: "it must be from 1 to 200",
      field: "limit",
    });
    const problem = parseProblem(422, body, null);
    expect([problem.status, problem.code]).toEqual([422, "invalid-field"]);
    expect(sentence(problem)).toBe("limit: it must be from 1 to 200.");
  });

  test("may be plain text, empty, or of another shape", () => {
    expect(sentence(parseProblem(400, "unknown event\n", null))).toBe("unknown event.");
    expect(sentence(parseProblem(502, "", null))).toBe("the service answered 502.");
    expect(sentence(parseProblem(500, "[1]", "4"))).toBe("the service answered 500 (in 4 s)");
    expect(sentence(new Problem(0, "", "Really?"))).toBe("Really?");
    expect(sentence(undefined)).toBe("Something went wrong.");
  });
});

describe("live events", () => {
  test("that are repeated are dropped, by run and camera", () => {
    const repetitions = new Repetitions();
    const event = (run: string, camera: string, seq: number) =>
      ({ schema: "twintrack.track_ended/1", run, camera, seq, id: 1 }) satisfies LiveMessage;
    const isNew = (run: string, camera: string, seq: number) =>
      repetitions.isNew(event(run, camera, seq));
    expect([isNew("r", "a", 4), isNew("r", "a", 4), isNew("r", "a", 3)]).toEqual([
      true,
      false,
      false,
    ]);
    expect([isNew("r", "b", 3), isNew("r", "a", 5), isNew("s", "a", 1)]).toEqual([
      true,
      true,
      true,
    ]);
    const status: LiveMessage = {
      schema: "twintrack.camera_status/1",
      run: "r",
      camera: "a",
      state: "online",
    };
    expect([repetitions.isNew(status), repetitions.isNew(status)]).toEqual([true, true]);
  });

  test("are waited for with growing, bounded pauses", () => {
    expect([0, 1, 2, 20].map(pause)).toEqual([500, 1000, 2000, 8000]);
  });
});

test("a message of the video has frame number, time and picture", () => {
  const data = new ArrayBuffer(18);
  const view = new DataView(data);
  view.setBigUint64(0, 4_294_967_298n);
  view.setFloat64(8, 12.5);
  view.setUint16(16, 0xffd8);
  const message = parseMessage(data);
  expect([message?.frame, message?.pts]).toEqual([4_294_967_298, 12.5]);
  expect([...(message?.jpeg ?? [])]).toEqual([0xff, 0xd8]);
  expect(parseMessage(new ArrayBuffer(16))).toBeNull();
});
