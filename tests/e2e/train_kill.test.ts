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
  // A run that reaches its end before all kills are spent is compared, and the next one is begun.
  let kills = 0;
  for (let run = 0; kills < KILLS; run++) {
    const name = `rough-${run}`;
    let done = 0;
    for (let finished = false; !finished; ) {
      const kill = kills < KILLS;
      // From the first sign of life to a little behind the end of an undisturbed run.
      const after = whole * (0.15 + 0.9 * moments.uniform(kills, run));
      let armed = false;
      const ended = await longtail(words(name), (_event, send) => {
        if (!kill || armed) return;
        armed = true;
        setTimeout(() => {
          try {
            send("SIGKILL");
          } catch {
            // It had ended by itself.
          }
        }, after);
      });
      finished = ended.code === 0;
      const where = `seed ${SEED}, run ${run}, kill ${kills}: ${ended.errors}`;
      if (!finished) {
        expect(ended.signal, where).toBe("SIGKILL");
        kills++;
      } else expect(ended.errors, where).toBe("");
      const steps = ended.events.flatMap((e) => (e.kind === "metric" && "loss" in e.values ? [e.step] : []));
      // Nothing that a checkpoint held is done again.
      if (steps.length > 0) expect(steps[0], where).toBeGreaterThanOrEqual(done);
      done = Math.max(done, (steps.at(-1) ?? 1) - 1);
    }
    compare(name);
  }
  expect(kills).toBe(KILLS);
}, 1_800_000);

/** The killed run's files against those of the run that nobody disturbed. */
function compare(name: string): void {
  for (const suffix of [".safetensors", ".kohya.safetensors"]) {
    const file = (run: string) => readFileSync(join(runs, run, run + suffix));
    expect(tensorsOf(file(name)).equals(tensorsOf(file("calm"))), `seed ${SEED}, ${name}${suffix}`).toBe(true);
  }
  const samples = (run: string) => join(runs, run, "samples", `step-${String(STEPS).padStart(6, "0")}`);
  for (const picture of readdirSync(samples("calm"))) {
    const same = readFileSync(join(samples(name), picture)).equals(readFileSync(join(samples("calm"), picture)));
    expect(same, `seed ${SEED}, ${name} ${picture}`).toBe(true);
  }
  const left = readdirSync(join(runs, name), { recursive: true }).map(String);
  expect(left.filter((path) => /\.tmp|\.partial$/.test(path))).toEqual([]);
}

/** The data part of a safetensors file; names of runs and times are in the header's metadata. */
function tensorsOf(bytes: Buffer): Buffer {
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)));
}
