// Writes the event files of a made-up run that was interrupted and continued, for read_tensorboard.py:
// deno run -A --no-check tests/oracle/write_tensorboard.ts <folder>. The first file ends in a torn record, as a crash
// leaves it, and the clock has gone back when the second begins.

import { mkdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { configText, openTensorBoard, settingsTable } from "../../src/cli/tensorboard_sink.ts";
import { encodePng } from "../../src/formats/png.ts";

const run = process.argv[2]!;
const picture = "samples/step-000000/00-seed42.png";
mkdirSync(join(run, "samples/step-000000"), { recursive: true });
writeFileSync(join(run, picture), encodePng({ width: 16, height: 8, channels: 3, depth: 8, data: new Uint8Array(16 * 8 * 3) }));
const onFailure = (error: unknown) => {
  throw error;
};
let time = 1_700_000_000;
const now = () => time++;

const texts = {
  settings: settingsTable({ "optim.lr": 1e-4, "a|b": "x\ny" }),
  config: configText("[train]\nsteps = 10\n```"),
};
const first = openTensorBoard(run, { onFailure, now, texts });
first.sink({ kind: "sample", step: 0, path: picture, item: "a red / fox", seed: 42 });
for (let step = 1; step <= 8; step++) {
  first.sink({ kind: "metric", step, values: { loss: 1 / step, lr: 1e-4, grad_norm: step === 3 ? Number.NaN : step } });
  if (step % 4 === 0) first.sink({ kind: "metric", step, values: { val_loss: step } });
}
first.sink({ kind: "warning", code: "E-NUM-001", text: "not finite <b>" });
first.close();
truncateSync(first.path, statSync(first.path).size - 5);

time = 1_600_000_000;
const second = openTensorBoard(run, { onFailure, now, stepsDone: 5, texts: { config: configText("continued") } });
for (let step = 6; step <= 10; step++) second.sink({ kind: "metric", step, values: { loss: 100 + step, lr: 1e-4 } });
second.sink({ kind: "sample", step: 10, path: picture, item: "a red / fox", seed: 42 });
second.close();
