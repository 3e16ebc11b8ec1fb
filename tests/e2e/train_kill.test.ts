// A training run as a real process that is killed (SIGKILL) at random moments of encoding, training, saving and writing its
// results, and started again each time: it ends with the same files, bit for bit, as a run that nobody disturbed.
// LONGTAIL_LONG=1 kills it 20 times.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { longtail } from "../helpers/processes.ts";

const STEPS = 12;
const KILLS = process.env.LONGTAIL_LONG === "1" ? 20 : 3;
/** Another seed gives other moments; it is printed with a failure. */
const SEED = Number(process.env.LONGTAIL_KILL_SEED ?? 20261123);

let runs: string;
beforeAll(() => {
  runs = mkdtempSync(join(tmpdir(), "longtail-train-kill-"));
});
afterAll(() => rmSync(runs, { recursive: true, force: true }));

const words = (name: string) => [
  "train",
  "lora",
  `--name=${name}`,
  `--run.folder=${runs}`,
  `--data.cache=${join(runs, "cache", name)}`,
  '--data.sets=[{path = "embedded", items = ["taco", "sari", "moai"], styles = ["noto", "twitter"]}]',
  "--data.flip=true",
  "--data.caption_dropout=0.2",
  "--adapter.rank=2",
  "--adapter.dropout=0.1",
  `--steps=${STEPS}`,
  "--batch=2",
  "--train.validate_every=5",
  "--train.validation_pictures=1",
  "--optim.ema=0.9",
  "--sample.steps=1",
  "--sample.every=6",
  "--save.every=1",
  "--save.keep=2",
  "--device.tuner=off",
  "--log.every=1",
];

it(`ends with the same files after being killed at ${KILLS} random moments as in one go`, async () => {
  const started = performance.now();
  const calm = await longtail(words("calm"));
  const whole = performance.now() - started;
  expect(calm.errors).toBe("");
  expect(calm.code).toBe(0);

  const moments = new RandomStream(SEED, "moments of killing");
  let done = 0;
  let finished = false;
  for (let kill = 0; kill < KILLS && !finished; kill++) {
    const timer = setTimeout.bind(null);
    let pid: number | null = null;
    // From the first sign of life to a little behind the end of an undisturbed run.
    const after = whole * (0.15 + 0.9 * moments.uniform(kill));
    const ended = await longtail(words("rough"), (_event, send) => {
      if (pid !== null) return;
      pid = 1;
      timer(() => {
        try {
          send("SIGKILL");
        } catch {
          // It had ended by itself.
        }
      }, after);
    });
    finished = ended.code === 0;
    if (!finished) expect(ended.signal, `seed ${SEED}, kill ${kill}: ${ended.errors}`).toBe("SIGKILL");
    const steps = ended.events.flatMap((e) => (e.kind === "metric" && "loss" in e.values ? [e.step] : []));
    // Nothing that a checkpoint held is done again.
    if (steps.length > 0) expect(steps[0]).toBeGreaterThanOrEqual(done);
    done = Math.max(done, (steps.at(-1) ?? 1) - 1);
  }
  if (!finished) {
    const last = await longtail(words("rough"));
    expect(last.errors, `seed ${SEED}`).toBe("");
    expect(last.code).toBe(0);
  }
  for (const suffix of [".safetensors", ".kohya.safetensors"]) {
    const file = (name: string) => readFileSync(join(runs, name, name + suffix));
    expect(tensorsOf(file("rough")).equals(tensorsOf(file("calm"))), `seed ${SEED}, ${suffix}`).toBe(true);
  }
  const samples = (name: string) => join(runs, name, "samples", `step-${String(STEPS).padStart(6, "0")}`);
  for (const picture of readdirSync(samples("calm"))) {
    expect(readFileSync(join(samples("rough"), picture)).equals(readFileSync(join(samples("calm"), picture)))).toBe(
      true,
    );
  }
  const left = readdirSync(join(runs, "rough"), { recursive: true }).map(String);
  expect(left.filter((name) => /\.tmp|\.partial$/.test(name))).toEqual([]);
}, 900_000);

/** The data part of a safetensors file; names of runs and times are in the header's metadata. */
function tensorsOf(bytes: Buffer): Buffer {
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)));
}
