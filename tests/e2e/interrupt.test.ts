// A run as a real process that is stopped with Ctrl-C and killed in the middle: it goes on from its newest whole checkpoint
// and ends with the same file, bit for bit, as a run that nobody disturbed. LONGTAIL_LONG=1 kills it many times. Its device
// memory is what the plan said.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { newestCheckpoint } from "../../src/training/checkpoint.ts";
import { type Ended, longtail, SMALL_RUN } from "../helpers/processes.ts";

const STEPS = 8;
const KILLS = process.env.LONGTAIL_LONG === "1" ? 12 : 1;

let runs: string;
beforeAll(() => {
  runs = mkdtempSync(join(tmpdir(), "longtail-interrupt-"));
});
afterAll(() => rmSync(runs, { recursive: true, force: true }));

const words = (name: string) => [
  "demo",
  `--name=${name}`,
  `--run.folder=${runs}`,
  `--align.steps=${STEPS}`,
  `--save.every=${name === "calm" ? 0 : 2}`,
  "--save.every=1",
  ...SMALL_RUN,
];
const record = (name: string) => JSON.parse(readFileSync(join(runs, name, "run.json"), "utf8")) as { state: string };
const weights = (name: string) => readFileSync(join(runs, name, `${name}.transformer.safetensors`));
/** Evaluations are metrics too; a loss has an update alone. */
const isUpdate = (event: RunEvent): event is RunEvent & { kind: "metric" } =>
  event.kind === "metric" && "loss" in event.values;
const stepsOf = (ended: Ended) => ended.events.filter(isUpdate).map((event) => event.step);
const newest = async (name: string) =>
  (await newestCheckpoint(new DiskFiles(), join(runs, name, "ckpt"))).newest?.step ?? 0;

/** What the report says was planned and taken, and what the system showed of the process. */
function expectMemoryAsPlanned(name: string, ended: Ended): void {
  const report = JSON.parse(readFileSync(join(runs, name, "report.json"), "utf8")) as {
    memory: { category: string; plannedBytes: number; allocatedBytes?: number }[];
  };
  const { plannedBytes, allocatedBytes } = report.memory.find((row) => row.category === "total")!;
  expect(plannedBytes).toBeLessThan(2 ** 30);
  expect(ended.peak.resident).toBeLessThan(3 * 2 ** 30);
  // Hardware and other systems do not show device memory.
  if (allocatedBytes === undefined) return;
  expect(Math.abs(allocatedBytes / plannedBytes - 1)).toBeLessThan(0.1);
  expect(Math.abs(ended.peak.device / plannedBytes - 1)).toBeLessThan(0.1);
}

it("ends with the same weights after Ctrl-C and after being killed as in one go", async () => {
  const times: number[] = [];
  const calm = await longtail(words("calm"), (event) => isUpdate(event) && times.push(performance.now()));
  const milliseconds = (times.at(-1)! - times[0]!) / (times.length - 1);
  expect(calm.errors).toBe("");
  expect(calm.code).toBe(0);
  expect(stepsOf(calm)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(record("calm").state).toBe("finished");
  expectMemoryAsPlanned("calm", calm);

  const stopped = await longtail(words("rough"), (event, send) => {
    if (isUpdate(event) && event.step === 2) send("SIGINT");
  });
  expect([stopped.code, stopped.signal, stopped.errors.slice(0, 10)]).toEqual([7, null, "E-RUN-001 "]);
  expect(stopped.errors.trimEnd().split("\n")).toHaveLength(1);
  expect(stopped.errors).toMatch(/^E-RUN-001 .*Fix: continue it with --run\.resume=/);
  expect(record("rough").state).toBe("stopped");
  const done = stepsOf(stopped).at(-1)!;
  expect(done).toBeGreaterThanOrEqual(2);
  expect(done).toBeLessThan(STEPS);
  expect(await newest("rough")).toBe(done);

  let last = done;
  for (let kill = 0; kill < KILLS && last < STEPS; kill++) {
    let asked = false;
    const killed = await longtail(words("rough"), (event, send) => {
      // At a random moment of an update, its checkpoint or the update after it.
      if (!isUpdate(event) || asked) return;
      asked = true;
      setTimeout(
        () => {
          try {
            send("SIGKILL");
          } catch {
            // It had ended by itself: the machine has become faster since the calm run was timed.
          }
        },
        2 * milliseconds * Math.random(),
      );
    });
    if (killed.code === 0) break;
    expect(killed.signal).toBe("SIGKILL");
    expect(stepsOf(killed)[0]).toBe(last + 1);
    expect(record("rough").state).toBe("running");
    const whole = await newest("rough");
    expect(whole).toBeGreaterThanOrEqual(last);
    expect(whole).toBeLessThanOrEqual(stepsOf(killed).at(-1)! + 1);
    last = whole;
  }

  const finished = await longtail(words("rough"));
  expect(finished.errors).toBe("");
  expect(finished.code).toBe(0);
  // Nothing is left to do where it ended before it was killed.
  expect(stepsOf(finished)[0] ?? last + 1).toBe(last + 1);
  expect(record("rough").state).toBe("finished");
  expect(weights("rough").equals(weights("calm"))).toBe(true);
  expect(readdirSync(join(runs, "rough", "ckpt")).filter((name) => !/^step-\d+$|^best\.json$/.test(name))).toEqual([]);
  for (const line of readFileSync(join(runs, "rough", "log.jsonl"), "utf8")
    .trimEnd()
    .split("\n"))
    JSON.parse(line);
}, 600_000);
