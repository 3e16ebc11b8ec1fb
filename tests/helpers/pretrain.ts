// A pretraining recipe that is over in seconds, and jobs of it on the test device.

import { join } from "node:path";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { declareJob, loadPretrainData, openViewer, type PretrainPart } from "../../src/training/pretrain/jobs.ts";
import { type PretrainSettings, RECIPES } from "../../src/training/pretrain/recipes.ts";
import { MODELS, NodeFiles } from "./files.ts";
import { testGpu } from "./gpu.ts";

const short = RECIPES["short"]!;
const NUMBERS = { steps: 6, batch: 4, warmup: 2, variants: 1 };

/** Six items, and networks of a few thousand weights. */
export const TINY: PretrainSettings = {
  ...short,
  name: "tiny",
  itemStride: 100,
  generator: {
    ...short.generator,
    ...NUMBERS,
    flux: { doubleBlocks: 1, singleBlocks: 1, heads: 2, headSize: 16, ropeAxes: [4, 6, 6] },
    clip: { width: 32, layers: 1, heads: 2, inner: 64 },
    t5: { width: 32, layers: 2, heads: 2, headSize: 16, inner: 48 },
  },
  reward: {
    ...short.reward,
    ...NUMBERS,
    qualityVariants: 1,
    shape: {
      embed: 16,
      patch: 16,
      visionWidth: 32,
      visionLayers: 1,
      visionHeads: 2,
      textWidth: 32,
      textLayers: 1,
      textHeads: 2,
    },
  },
};

export const FOLDERS = {
  data: join(MODELS, "embedded"),
  tokenizers: join(MODELS, "tokenizers"),
  taef2: join(MODELS, "taef2/taef2.safetensors"),
};

/** A job whose session is open, with starting values and views. */
export async function startJob(part: PretrainPart, settings: PretrainSettings) {
  const files = new NodeFiles();
  const gpu = await testGpu();
  const target = targetOf(gpu);
  const data = await loadPretrainData(files, FOLDERS, settings);
  const session = new Session(target);
  const job = await declareJob(session, part, settings, data);
  await session.open(gpu);
  job.initialise();
  await job.prepare(
    (options) => openViewer(files, gpu, target, FOLDERS.taef2, settings, options),
    () => {},
  );
  return { files, gpu, session, job, data };
}
