// Makes models/embedded/map.json, the places of the page's map of concepts: what the held-out judge sees in the real pictures
// of an item, averaged over their styles, laid out in three dimensions by concept_layout.ts.
// `deno run -A --no-check scripts/concept_map.ts [output.json]` prints how many neighbours the layout keeps.

import { writeFile } from "node:fs/promises";
import process from "node:process";
import { EmbeddedData } from "../src/data/embedded.ts";
import { openDevice } from "../src/gpu/device.ts";
import { openGpu } from "../src/platform/adapters.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { restFor } from "../src/platform/rest.ts";
import { pictureFeatures } from "../src/rewards/clip_reward.ts";
import { ClipScorer } from "../src/rewards/scorer.ts";
import { Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import { layout, nearest, preservedNeighbours, principalComponents } from "./concept_layout.ts";

const FOLDER = "models/embedded";
const SEED = 1;
const BATCH = 16;
/** A little more than the discs that the page draws are wide. */
const APART = 0.085;
/** Neighbours by which the layout is measured, and those that the map lists. */
const MEASURED = 10;
const LISTED = 6;

/** Unit features of every item under the judge, averaged over the styles in which it was drawn. */
async function itemFeatures(data: EmbeddedData, files: DiskFiles): Promise<Float32Array[]> {
  const gpu = await openDevice(await openGpu({ backend: "dawn", robust: false }), { rest: restFor("dawn") });
  const session = new Session(targetOf(gpu));
  const scorer = await ClipScorer.open(files, session, { name: "judge", folder: `${FOLDER}/judge`, towers: "picture" });
  const input = session.data("pictures", [BATCH, 3, data.size, data.size]);
  const output = session.data("features", [BATCH, scorer.width]);
  const plan = session.plan("features", (graph) => {
    const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
      session.constant(graph, name, values, shape);
    graph.assign(output, pictureFeatures(scorer.model, graph, graph.read(input), constant).features);
  });
  await session.open(gpu);
  await scorer.loadWeights(session);
  const wanted = data.items.flatMap((item, index) => data.stylesOf(item).map((style) => ({ item, index, style })));
  const sums = data.items.map(() => new Float32Array(scorer.width));
  const size = 3 * data.size * data.size;
  for (let at = 0; at < wanted.length; at += BATCH) {
    const part = wanted.slice(at, at + BATCH);
    const pixels = new Float32Array(BATCH * size);
    for (const [i, { item, style }] of part.entries()) pixels.set((await data.picture(item, style))!, i * size);
    session.write(input, pixels);
    session.run(plan);
    const values = await session.read(output);
    for (const [i, { index }] of part.entries())
      for (let k = 0; k < scorer.width; k++) sums[index]![k]! += values[i * scorer.width + k]!;
    if (at % (BATCH * 32) === 0) console.log(`${at} of ${wanted.length} pictures`);
  }
  session.close();
  gpu.close();
  return sums.map((sum) => {
    const length = Math.hypot(...sum);
    return sum.map((value) => value / length);
  });
}

async function main(output = `${FOLDER}/map.json`): Promise<number> {
  const files = new DiskFiles();
  const data = await EmbeddedData.load(files, FOLDER);
  const features = await itemFeatures(data, files);
  const places = layout(features, { seed: SEED, apart: APART }).map((place) =>
    place.map((value) => Number(value.toFixed(3))),
  );
  const neighbours = nearest(features, LISTED);
  const kept = preservedNeighbours(features, places, MEASURED);
  const components = preservedNeighbours(features, principalComponents(features, 3), MEASURED);
  console.log(
    `of ${MEASURED} nearest neighbours the map keeps ${(100 * kept).toFixed(1)} % ` +
      `(three principal components alone: ${(100 * components).toFixed(1)} %)`,
  );
  // One item a line, so that a change can be read.
  const lines = data.items.map(({ item }, i) => JSON.stringify([item, ...places[i]!, neighbours[i]]));
  const head = JSON.stringify({ seed: SEED, measured: MEASURED, kept: Number(kept.toFixed(3)) }).slice(0, -1);
  const text = `${head},"items":[\n${lines.join(",\n")}\n]}\n`;
  await writeFile(output, text);
  console.log(`wrote ${output}, ${text.length} characters`);
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv[2]);
