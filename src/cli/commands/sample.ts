// `longtail sample`: pictures from prompts or from a list of items, with the base model, a run's transformer, or a LoRA at
// any strength. Each picture is a PNG with its parameters inside; what exists already is skipped.

import { basename, join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { fillTemplate } from "../../data/prompts.ts";
import { type LoraLayer, readLora } from "../../formats/lora.ts";
import {
  decodePng,
  encodePng,
  fromPlanes,
  type Picture as PngPicture,
  pictureGrid,
  toPlanes,
} from "../../formats/png.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { Gpu } from "../../gpu/device.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { loadParameters } from "../../nn/parameters.ts";
import { targetOf } from "../../tensor/target.ts";
import { deviceLine, withRunDevice } from "../align/device.ts";
import { loadItems } from "../align/items.ts";
import { Progress } from "../align/phases.ts";
import { buildWorld, openWorld, type World } from "../align/world.ts";
import type { Command, CommandContext } from "../command.ts";
import type { Config } from "../config/schema.ts";
import { findRun } from "./report.ts";

export const command: Command = {
  name: "sample",
  summary: "draw pictures from prompts or items, also with a run's weights",
  usage: '["prompt" ...] [--items=FILE|embedded] [--weights=RUN|FILE] [--strength=1]',
  options: [
    {
      name: "items",
      value: "FILE",
      summary: 'items instead of prompts: a file, or "embedded" for those that come along',
    },
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
  /** File name without ending. */
  name: string;
  /** Which noise it is drawn from. */
  index: number;
  /** What is stored in it. */
  text: Record<string, string>;
}

async function sample(context: CommandContext): Promise<number> {
  const { flags } = context.arguments;
  const { files } = context;
  const { config } = await context.loadConfig({ preset: "embedded" });
  config.eval = {
    ...config.eval,
    steps: config.sample.steps,
    shift: config.sample.shift,
    guidance: config.sample.guidance,
    judge: "none",
  };
  const strength = numberFlag(flags["strength"], "strength", 1, -100, 100);
  const output = typeof flags["output"] === "string" ? flags["output"] : "samples";
  const weights = typeof flags["weights"] === "string" ? await weightsFile(context, flags["weights"]) : null;
  const lora = weights && (await isLora(context, weights)) ? (await readLora(files, weights)).layers : undefined;
  const pictures = await wanted(context, config, {
    seed: String(config.sample.seed),
    steps: String(config.sample.steps),
    shift: String(config.sample.shift),
    guidance: String(config.sample.guidance),
    weights: weights ? basename(weights) : "base",
    ...(lora ? { strength: String(strength) } : {}),
    software: "longtail",
  });
  const cells = new Map<Picture, PngPicture>();
  for (const picture of pictures) {
    const found = await existing(files, join(output, `${picture.name}.png`), picture);
    if (found) cells.set(picture, found);
  }
  const missing = pictures.filter((p) => !cells.has(p));
  if (missing.length > 0) {
    await withRunDevice(config, async (gpu) => {
      context.emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
      const world = await openForSampling(context, config, gpu, { weights, lora, strength });
      const side = world.pipeline.imageSize;
      await drawMissing(context, config, world, missing, async (picture, planes) => {
        const image = fromPlanes(planes, side, side, picture.text);
        const path = join(output, `${picture.name}.png`);
        await files.writeAtomic(path, encodePng(image));
        context.emit({ kind: "sample", step: 0, path, seed: config.sample.seed });
        cells.set(picture, image);
      });
      world.session.close();
    });
    const all = pictures.map((p) => toPlanes(cells.get(p)!));
    const { width, height } = cells.get(pictures[0]!)!;
    await files.writeAtomic(
      join(output, "grid.png"),
      encodePng(pictureGrid(all, width, height, { columns: Math.min(8, all.length), zoom: 2 })),
    );
  }
  const skipped = pictures.length - missing.length;
  context.result(
    { output, drawn: missing.length, skipped },
    `${missing.length} pictures in ${output}${skipped ? `, ${skipped} were there already` : ""}`,
  );
  return 0;
}

/** The pictures that the command line asks for, `--count` of each prompt; names are unique. */
async function wanted(context: CommandContext, config: Config, settings: Record<string, string>): Promise<Picture[]> {
  const { flags, positionals } = context.arguments;
  const count = numberFlag(flags["count"], "count", 2, 1, 10000);
  const prompts = positionals.map((prompt) => ({ prompt, name: slug(prompt) }));
  if (typeof flags["items"] === "string") {
    const { items } = await loadItems(context.files, { ...config, data: { ...config.data, items: flags["items"] } });
    for (const item of items)
      prompts.push({
        prompt: fillTemplate(config.data.prompt, item, config.data.styles[0] ?? null),
        name: slug(item.item),
      });
  }
  if (prompts.length === 0) {
    throw new LongtailError("E-ARG-050", {
      what: "there is nothing to draw",
      where: "sample",
      fix: 'give a prompt, as in longtail sample "noto icon of taco", or --items=embedded',
    });
  }
  const taken = new Map<string, number>();
  const pictures: Picture[] = [];
  for (const { prompt, name } of prompts) {
    const times = (taken.get(name) ?? 0) + 1;
    taken.set(name, times);
    for (let i = 0; i < count; i++) {
      const index = pictures.length;
      // Two prompts can read the same once spaces and signs are gone.
      pictures.push({
        prompt,
        name: `${name}${times > 1 ? `-${times}` : ""}_${i}`,
        index,
        text: { prompt, picture: String(index), ...settings },
      });
    }
  }
  return pictures;
}

/** The picture that lies at `path` already, or null. One that was made otherwise is neither taken nor overwritten. */
async function existing(files: FileStore, path: string, picture: Picture): Promise<PngPicture | null> {
  if (!(await files.exists(path))) return null;
  const found = decodePng(await files.readBytes(path), path);
  const other = Object.entries(picture.text).find(([key, value]) => found.text[key] !== value);
  if (!other) return found;
  throw new LongtailError("E-ARG-052", {
    what: "a picture of this name was made in another way",
    where: path,
    why: `its ${other[0]} is ${JSON.stringify(found.text[other[0]] ?? "not known")} and not ${JSON.stringify(other[1])}`,
    fix: "choose another folder with --output, or remove the picture",
  });
}

async function openForSampling(
  context: CommandContext,
  config: Config,
  gpu: Gpu,
  {
    weights,
    lora,
    strength,
  }: { weights: string | null; lora: ReadonlyMap<string, LoraLayer> | undefined; strength: number },
): Promise<World> {
  const world = await buildWorld(context.files, config, targetOf(gpu), { train: false, ...(lora ? { lora } : {}) });
  const phases = new Progress(context.emit);
  await phases.timed("compile and load", world.session.plans.length, "plans", (tick) =>
    openWorld(world, gpu, config, (name, done, total) => name === "compile" && tick(done, total)),
  );
  if (lora) {
    world.adapter!.load(world.session, lora, weights!);
    world.adapter!.setStrength(world.session, strength);
  } else if (weights) {
    const file = await Safetensors.open(context.files, weights);
    try {
      await loadParameters(world.session, world.pipeline.transformer.parameters, tensorSource(file));
    } finally {
      await file.close();
    }
  }
  return world;
}

/** Draws batch by batch and hands every picture out as soon as it is there, so that Ctrl-C loses one batch at most. */
async function drawMissing(
  context: CommandContext,
  config: Config,
  world: World,
  missing: readonly Picture[],
  take: (picture: Picture, planes: Float32Array) => Promise<void>,
): Promise<void> {
  const embeddings = await world.prompts.encode(missing.map((p) => p.prompt));
  for (const text of world.prompts.unknown) {
    context.emit({
      kind: "warning",
      code: "E-DATA-060",
      text: `"${text}" has words that the embedded model's tables do not hold; they read as nothing`,
    });
  }
  await new Progress(context.emit).timed("draw", missing.length, "pictures", async (tick) => {
    for (let at = 0; at < missing.length; at += config.eval.batch) {
      if (context.signal.aborted) throw context.signal.reason;
      const part = missing.slice(at, at + config.eval.batch);
      const requests = part.map((p, i) => ({
        ...embeddings[at + i]!,
        noise: world.drawing.noise(config.sample.seed, p.index),
      }));
      const drawn = await world.drawing.draw(requests);
      for (const [i, picture] of part.entries()) await take(picture, drawn[i]!.picture);
      tick(at + part.length);
    }
  });
}

/** A name that is safe in a file system, of at most 50 characters. */
function slug(text: string): string {
  return (
    text
      .normalize("NFKD")
      .replace(/[^A-Za-z0-9]+/g, "_")
      .replace(/^_+|_+$/g, "")
      .slice(0, 50) || "picture"
  );
}

function numberFlag(
  value: string | true | undefined,
  name: string,
  byDefault: number,
  least: number,
  most: number,
): number {
  if (value === undefined) return byDefault;
  const number = Number(value);
  if (value !== true && Number.isFinite(number) && number >= least && number <= most) return number;
  throw new LongtailError("E-ARG-051", {
    what: `--${name} is not a number between ${least} and ${most}`,
    where: String(value),
    fix: `as in --${name}=${byDefault}`,
  });
}

/** The weights of a run (its transformer, else its LoRA), or the file itself. */
async function weightsFile(context: CommandContext, path: string): Promise<string> {
  if (path.endsWith(".safetensors")) return path;
  const folder = await findRun(context.files, "runs", path);
  const names = await context.files.list(folder);
  const found =
    names.find((n) => n.endsWith(".transformer.safetensors")) ?? names.find((n) => n.endsWith(".lora.safetensors"));
  if (found) return join(folder, found);
  throw new LongtailError("E-FILE-055", {
    what: "the run has no weights",
    where: folder,
    why: "it did not reach its end",
    fix: "continue it with longtail align --resume=auto",
  });
}

async function isLora(context: CommandContext, path: string): Promise<boolean> {
  const file = await Safetensors.open(context.files, path);
  try {
    return [...file.names()].some((name) => /lora_(A|B|down|up)/.test(name));
  } finally {
    await file.close();
  }
}
