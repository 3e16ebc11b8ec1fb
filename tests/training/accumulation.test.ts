// Gradient accumulation and stacked branches are ways of cutting the same update into pieces: what comes out is the same.

import { describe, expect, it } from "vitest";
import { DiskFiles } from "../../src/platform/files.ts";
import { loadItems } from "../../src/runs/align/items.ts";
import { promptOrder } from "../../src/runs/align/prompts.ts";
import { preparePrompts } from "../../src/runs/align/run.ts";
import { Bench, type Changes, smallConfig } from "../helpers/alignment.ts";

/** Everything that one update leaves, and how far the weights moved. */
async function oneUpdate(changes: Changes): Promise<{ loss: number; norm: number; pools: Float32Array[] }> {
  // With a large epsilon Adam's first step follows the gradient; with a small one it would follow the signs of noise.
  const all = { "align.rollout_steps": "1", "optim.eps": "1e-3", "optim.lr": "0.5", ...changes };
  const bench = await Bench.open(all);
  try {
    const config = await smallConfig(all);
    const { items, data } = await loadItems(new DiskFiles(), config);
    const { world } = bench;
    const { session, trained } = world;
    const read = async () => {
      const lists: Float32Array[] = [];
      for (const pool of bench.pools) {
        const list = new Float32Array(pool.variables.reduce((n, v) => n + v.size, 0));
        let at = 0;
        for (const v of pool.variables) {
          list.set(await session.read(v), at);
          at += v.size;
        }
        lists.push(list);
      }
      return lists;
    };
    const before = await read();
    const texts = await bench.texts(config);
    const prompts = await preparePrompts({ config, world, texts, data }, promptOrder(config, items), 1);
    const report = await world.trainer!.update(1, prompts);
    const after = await read();
    expect(trained[0]!.variables.length).toBeGreaterThan(10);
    return {
      loss: report.loss,
      norm: report.gradientNorm,
      pools: [after[0]!.map((w, i) => w - before[0]![i]!), after[1]!, after[2]!],
    };
  } finally {
    bench.close();
  }
}

/** ‖a - b‖ / ‖b‖. */
function relative(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(difference / size);
}

describe("one update", () => {
  it("is the same from a batch of 4, from two accumulated batches of 2, and with stacked branches", async () => {
    const whole = await oneUpdate({ "align.batch": "4" });
    expect(whole.norm).toBeGreaterThan(0);
    const cuts: Changes[] = [
      { "align.batch": "2", "train.accumulation": "2" },
      { "align.batch": "2", "train.accumulation": "2", "align.stacked": "yes" },
    ];
    for (const changes of cuts) {
      const parts = await oneUpdate(changes);
      const where = JSON.stringify(changes);
      expect(Math.abs(parts.loss / whole.loss - 1), where).toBeLessThan(1e-5);
      expect(Math.abs(parts.norm / whole.norm - 1), where).toBeLessThan(1e-5);
      for (const [i, name] of ["change of the weights", "first moment", "second moment"].entries())
        expect(relative(parts.pools[i]!, whole.pools[i]!), `${name} ${where}`).toBeLessThan(1e-5);
    }
  });
});
