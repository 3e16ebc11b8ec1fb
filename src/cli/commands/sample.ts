// `longtail sample`: pictures from prompts or from a list of items, with the base model, a run's transformer, or a LoRA at
// any strength. Each picture is a PNG with its parameters inside; what exists already is skipped.

import { basename, join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import { fillTemplate } from "../../data/prompts.ts";
import { readLora } from "../../formats/lora.ts";
import { encodePng, fromPlanes, pictureGrid } from "../../formats/png.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { loadParameters } from "../../nn/parameters.ts";
import { deviceLine, openRunDevice } from "../align/device.ts";
import { loadItems } from "../align/items.ts";
import { Progress } from "../align/phases.ts";
import { buildWorld, openWorld } from "../align/world.ts";
import type { Command, CommandContext } from "../command.ts";
import { findRun } from "./report.ts";

export const command: Command = {
  name: "sample",
  summary: "draw pictures from prompts or items, also with a run's weights",
  usage: '["prompt" ...] [--items=FILE|embedded] [--weights=RUN|FILE] [--strength=1]',
  options: [
    { name: "items", value: "FILE", summary: 'items instead of prompts: a file, or "embedded" for those that come along' },
    { name: "weights", value: "PATH", summary: "a run, a transformer file, or a LoRA file; default the base model" },
    { name: "strength", value: "NUMBER", summary: "strength of a LoRA; default 1" },
    { name: "count", value: "N", summary: "pictures for each prompt; default 2" },
    { name: "output", value: "PATH", summary: "folder for the pictures; default samples" },
  ],
  description: "Writes one PNG a picture (prompt, seed and weights are stored in it) and grid.png with all of them.",
  positionals: [0, 64],
  configuration: true,
  examples: [
    ['longtail sample "noto icon of taco" --count=4', "four pictures of the base model"],
    ["longtail sample --items=embedded --weights=runs/first", "all embedded items with a run's weights"],
    ['longtail sample "icon of sari" --weights=first.lora.safetensors --strength=0.5', "half of a LoRA"],
  ],
  run: sample,
};

interface Picture {
  prompt: string;
  name: string;
  index: number;
}

async function sample(context: CommandContext): Promise<number> {
  const { flags, positionals } = context.arguments;
  const { files } = context;
  const { config } = await context.loadConfig({ preset: "embedded" });
  config.eval = { ...config.eval, steps: config.sample.steps, shift: config.sample.shift, guidance: config.sample.guidance, judge: "none" };
  const count = numberFlag(flags["count"], "count", 2, 1, 10000);
  const strength = numberFlag(flags["strength"], "strength", 1, -100, 100);
  const output = typeof flags["output"] === "string" ? flags["output"] : "samples";
  const pictures: Picture[] = [];
  const add = (prompt: string, name: string) => {
    for (let i = 0; i < count; i++) pictures.push({ prompt, name: `${name}_${i}`, index: pictures.length });
  };
  for (const prompt of positionals) add(prompt, slug(prompt));
  if (typeof flags["items"] === "string") {
    const { items } = await loadItems(files, { ...config, data: { ...config.data, items: flags["items"] } });
    for (const item of items) add(fillTemplate(config.data.prompt, item, config.data.styles[0] ?? null), slug(item.item));
  }
  if (pictures.length === 0) {
    throw new LongtailError("E-ARG-050", {
      what: "there is nothing to draw",
      where: "sample",
      fix: 'give a prompt, as in longtail sample "noto icon of taco", or --items=embedded',
    });
  }
  const weights = typeof flags["weights"] === "string" ? await weightsFile(context, flags["weights"]) : null;
  const lora = weights && (await isLora(context, weights)) ? (await readLora(files, weights)).layers : undefined;
  const missing: Picture[] = [];
  for (const picture of pictures) if (!(await files.exists(join(output, `${picture.name}.png`)))) missing.push(picture);

  const gpu = await openRunDevice(config);
  context.emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
  const { targetOf } = await import("../../tensor/target.ts");
  const world = await buildWorld(files, config, targetOf(gpu), { train: false, ...(lora ? { lora } : {}) });
  const phases = new Progress(context.emit);
  await phases.timed("compile and load", world.session.plans.length, "plans", (tick) =>
    openWorld(world, gpu, config, (name, done, total) => name === "compile" && tick(done, total)));
  if (lora) {
    world.adapter!.load(world.session, lora, weights!);
    world.adapter!.setStrength(world.session, strength);
  } else if (weights) {
    const file = await Safetensors.open(files, weights);
    await loadParameters(world.session, world.pipeline.transformer.parameters, tensorSource(file));
    await file.close();
  }
  const side = world.pipeline.imageSize;
  const cells: Float32Array[] = [];
  if (missing.length > 0) {
    const embeddings = await world.prompts.encode(missing.map((p) => p.prompt));
    for (const text of world.prompts.unknown) {
      context.emit({ kind: "warning", code: "E-DATA-060", text: `"${text}" has words that the embedded model's tables do not hold; they read as nothing` });
    }
    await phases.timed("draw", missing.length, "pictures", async (tick) => {
      const requests = missing.map((p, i) => ({ ...embeddings[i]!, noise: world.drawing.noise(config.sample.seed, p.index) }));
      const drawn = await world.drawing.draw(requests, (done) => {
        tick(done);
        if (context.signal.aborted) throw context.signal.reason;
      });
      for (const [i, picture] of missing.entries()) {
        const text = {
          prompt: picture.prompt,
          seed: String(config.sample.seed),
          picture: String(picture.index),
          steps: String(config.sample.steps),
          weights: weights ? basename(weights) : "base",
          ...(lora ? { strength: String(strength) } : {}),
          software: "longtail",
        };
        const path = join(output, `${picture.name}.png`);
        await files.writeAtomic(path, encodePng(fromPlanes(drawn[i]!.picture, side, side, text)));
        context.emit({ kind: "sample", step: 0, path, seed: config.sample.seed });
        cells.push(drawn[i]!.picture);
      }
    });
    await files.writeAtomic(join(output, "grid.png"), encodePng(pictureGrid(cells, side, side, { columns: Math.min(8, cells.length), zoom: 2 })));
  }
  world.session.close();
  gpu.close();
  const skipped = pictures.length - missing.length;
  context.result({ output, drawn: missing.length, skipped }, `${missing.length} pictures in ${output}${skipped ? `, ${skipped} were there already` : ""}`);
  return 0;
}

/** A name that is safe in a file system, of at most 50 characters. */
function slug(text: string): string {
  return text.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 50) || "picture";
}

function numberFlag(value: string | true | undefined, name: string, byDefault: number, least: number, most: number): number {
  if (value === undefined) return byDefault;
  const number = Number(value);
  if (value !== true && Number.isFinite(number) && number >= least && number <= most) return number;
  throw new LongtailError("E-ARG-051", { what: `--${name} is not a number between ${least} and ${most}`, where: String(value), fix: `as in --${name}=${byDefault}` });
}

/** The weights of a run (its transformer, else its LoRA), or the file itself. */
async function weightsFile(context: CommandContext, path: string): Promise<string> {
  if (path.endsWith(".safetensors")) return path;
  const folder = await findRun(context.files, "runs", path);
  const names = await context.files.list(folder);
  const found = names.find((n) => n.endsWith(".transformer.safetensors")) ?? names.find((n) => n.endsWith(".lora.safetensors"));
  if (found) return join(folder, found);
  throw new LongtailError("E-FILE-055", { what: "the run has no weights", where: folder, why: "it did not reach its end", fix: "continue it with longtail align --resume=auto" });
}

async function isLora(context: CommandContext, path: string): Promise<boolean> {
  const file = await Safetensors.open(context.files, path);
  try {
    return [...file.names()].some((name) => /lora_(A|B|down|up)/.test(name));
  } finally {
    await file.close();
  }
}
