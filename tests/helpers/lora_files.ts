// Adapters of every kind for the small FLUX.1 of the dumps, made from counted random numbers, and the files that the writers
// make of them. The same files are written to disk for diffusers and PEFT (tests/oracle/write_lora_files.ts) and to memory
// by the tests, which compare their hashes.

import type { FileStore } from "../../src/base/files.ts";
import { RandomStream } from "../../src/base/random.ts";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { factorisation } from "../../src/formats/lokr.ts";
import {
  type LoraFacts,
  writeKohya,
  writeLora,
  writeLoraPair,
  writeOneTrainer,
  writePeft,
  writePeftLokr,
} from "../../src/formats/lora.ts";
import type { FluxConfig } from "../../src/models/flux/config.ts";
import { FLUX_PRESETS, fluxModules, type ModuleSize } from "../../src/models/flux/keys.ts";

/** A model of FLUX.1's width with one block of each kind. */
export const WIDE: FluxConfig = { ...FLUX_PRESETS["flux-dev"]!, doubleBlocks: 1, singleBlocks: 1 };

export const FACTS: LoraFacts = {
  name: "small",
  architecture: "flux-1",
  date: "2026-11-23T00:00:00",
  resolution: [64, 64],
  learningRate: 1e-5,
  optimizer: "adamw",
  steps: 20,
  epoch: 2,
  seed: 7,
  mixedPrecision: "no",
  guidance: 1,
  timestepSampling: "sigmoid",
  triggerPhrase: "noto icon",
  license: "CC0-1.0",
  tagFrequency: { icons: { sari: 2, "naïve «taco»": 1 } },
  datasets: [{ name: "icons", pictures: 3 }],
  comment: "a test",
};

export interface LoraOptions {
  rank: (module: string) => number;
  alpha: (module: string, rank: number) => number;
  only?: (module: string) => boolean;
  dora?: boolean;
  root?: boolean;
}

/** Layers for the modules; A with deviation 1 / √inputs, so that the change is of the weights' own size. */
export function loraLayers(config: FluxConfig, name: string, options: LoraOptions): Map<string, LoraLayer> {
  const layers = new Map<string, LoraLayer>();
  for (const [module, { outputs, inputs }] of chosen(config, options.only)) {
    const rank = options.rank(module);
    const normals = (part: string, count: number, deviation: number, mean = 0) =>
      new RandomStream(0, `${name}.${module}.${part}`).normals(0, count).map((value) => mean + deviation * value);
    layers.set(module, {
      rank,
      inputs,
      outputs,
      down: normals("down", rank * inputs, 1 / Math.sqrt(inputs)),
      up: normals("up", outputs * rank, 0.2),
      scale: options.alpha(module, rank) / (options.root ? Math.sqrt(rank) : rank),
      ...(options.dora ? { magnitude: normals("magnitude", outputs, 0.1, 1) } : {}),
    });
  }
  return layers;
}

/** LoKr layers whose second matrix is a product of rank 2, whole where `whole` says. */
export function lokrLayers(
  config: FluxConfig,
  name: string,
  only: (module: string) => boolean,
  whole: (module: string) => boolean,
): Map<string, LokrLayer> {
  const layers = new Map<string, LokrLayer>();
  for (const [module, { outputs, inputs }] of chosen(config, only)) {
    const [rows, columns] = [factorisation(outputs, 4), factorisation(inputs, 4)];
    const normals = (part: string, count: number) =>
      new RandomStream(0, `${name}.${module}.${part}`).normals(0, count).map((value) => 0.2 * value);
    const [height, width] = [rows[1], columns[1]];
    layers.set(module, {
      inputs,
      outputs,
      first: { rows: rows[0], columns: columns[0], whole: normals("first", rows[0] * columns[0]) },
      second: whole(module)
        ? { rows: height, columns: width, whole: normals("second", height * width) }
        : {
            rows: height,
            columns: width,
            rank: 2,
            left: normals("left", 2 * height),
            right: normals("right", 2 * width),
          },
      scale: whole(module) ? 1 : 2,
    });
  }
  return layers;
}

function chosen(config: FluxConfig, only: (module: string) => boolean = () => true): [string, ModuleSize][] {
  return [...fluxModules(config)].filter(([module]) => only(module));
}

const attention = (module: string) => /\battn\./.test(module);
const mixedRank = (module: string) => (module === "proj_out" ? 5 : /to_q|proj_out$/.test(module) ? 2 : 3);
const mixedAlpha = (module: string, rank: number) => (/to_v|^proj_out$/.test(module) ? 2 * rank : 3);

/** Files by the name of their case, as each is written: the path below the folder, and how the oracle loads it. */
export interface WrittenCase {
  name: string;
  path: string;
  loader: "diffusers" | "adapter" | "peft" | "wide";
}

/** Writes all cases below `folder`. */
export async function writeCases(files: FileStore, folder: string, config: FluxConfig): Promise<WrittenCase[]> {
  const cases: WrittenCase[] = [];
  const at = (name: string, loader: WrittenCase["loader"], path = `${name}.safetensors`) => {
    cases.push({ name, path, loader });
    return `${folder}/${path}`;
  };
  const uniform = loraLayers(config, "uniform", { rank: () => 3, alpha: () => 6 });
  await writeLora(files, at("diffusers", "diffusers"), uniform, { fields: "portable", facts: FACTS });
  await writePeft(files, at("peft", "peft", "peft/adapter_model.safetensors"), uniform);
  at("alphas", "diffusers");
  await writeLoraPair(files, `${folder}/alphas`, uniform, FACTS);
  const mixed = loraLayers(config, "mixed", { rank: mixedRank, alpha: mixedAlpha });
  await writeLora(files, at("patterns", "diffusers"), mixed);
  at("pair", "diffusers");
  await writeLoraPair(files, `${folder}/pair`, mixed, FACTS);
  const rooted = loraLayers(config, "rooted", { rank: () => 4, alpha: () => 3, only: attention, root: true });
  await writeLora(files, at("rslora", "diffusers"), rooted, { rankStabilised: true, dtype: "BF16" });
  const doubles = loraLayers(config, "doubles", {
    rank: (module) => (module.includes("to_k") ? 1 : 2),
    alpha: (_, rank) => 1.5 * rank,
    only: (module) => module.startsWith("transformer_blocks."),
  });
  await writeKohya(files, at("kohya", "diffusers"), doubles, { facts: FACTS });
  const one = loraLayers(config, "onetrainer", { rank: () => 2, alpha: () => 3, only: attention });
  await writeOneTrainer(files, at("onetrainer", "diffusers"), one);
  const dora = loraLayers(config, "dora", { rank: () => 2, alpha: () => 3, only: attention, dora: true });
  await writeLora(files, at("dora", "diffusers"), dora, { fields: "portable" });
  await writePeft(files, at("dora_peft", "peft", "dora_peft/adapter_model.safetensors"), dora);
  const kronecker = lokrLayers(config, "lokr", attention, (module) => module.endsWith("to_q"));
  at("lokr", "adapter", "lokr.safetensors");
  await writeLoraPair(files, `${folder}/lokr`, kronecker, FACTS);
  await writePeftLokr(files, at("lokr_peft", "peft", "lokr_peft/adapter_model.safetensors"), kronecker);
  const wide = wideLayers();
  await writeKohya(files, at("wide", "wide", "wide.kohya.safetensors"), wide, { facts: FACTS });
  await writeLora(files, `${folder}/wide.safetensors`, wide, { facts: FACTS });
  return cases;
}

/** The layers of FLUX.1's own width, in the blocks. */
export function wideLayers(): Map<string, LoraLayer> {
  return loraLayers(WIDE, "wide", { rank: () => 2, alpha: () => 3, only: (module) => module.includes("blocks.") });
}
