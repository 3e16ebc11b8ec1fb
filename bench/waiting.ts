// How long a wait for the device takes awaited at once, and with a short sleep between questions (src/platform/rest.ts).

import { openRunDevice } from "../src/cli/run_device.ts";
import { linear } from "../src/ops/matmul.ts";
import { Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";

const [SIZE, PRODUCTS, ROUNDS] = [1024, 4, 7];
type RunConfig = Parameters<typeof openRunDevice>[0];
const gpu = await openRunDevice({ device: { backend: "dawn", robust: false } } as RunConfig, () => {});
const session = new Session(targetOf(gpu));
const [x, w, y] = ["x", "w", "y"].map((name) => session.data(name, [SIZE, SIZE])) as [never, never, never];
const plan = session.plan("product", (graph) => graph.assign(y, linear(graph.read(x), graph.read(w))));
await session.open(gpu);

async function timed(wait: (done: Promise<undefined>) => Promise<unknown>): Promise<number> {
  const started = performance.now();
  for (let i = 0; i < PRODUCTS; i++) session.run(plan);
  await wait(gpu.device.queue.onSubmittedWorkDone());
  return performance.now() - started;
}

const awaited: number[] = [];
const rested: number[] = [];
for (let round = 0; round <= ROUNDS; round++) {
  const first = await timed((done) => done);
  const second = await timed((done) => gpu.wait(done));
  // The first round compiles and warms up.
  if (round > 0) {
    awaited.push(first);
    rested.push(second);
  }
}
const line = (values: number[]) => {
  const sorted = values.sort((a, b) => a - b).map((v) => v.toFixed(0));
  return `least ${sorted[0]}, median ${sorted[sorted.length >> 1]}, most ${sorted.at(-1)} ms`;
};
console.log(`adapter: ${gpu.facts.name}${gpu.facts.software ? ", software" : ""}; ${PRODUCTS} products of ${SIZE}`);
console.log(`awaited at once:        ${line(awaited)}`);
console.log(`sleeping between turns: ${line(rested)}`);
const median = (values: number[]) => values[values.length >> 1]!;
const ratio = median(awaited) / median(rested);
const row = { name: "waiting", ours: median(rested), best_peer: median(awaited), ratio };
if (Deno.args.includes("--json")) console.log(JSON.stringify({ rows: [row] }));
Deno.exit(0);
