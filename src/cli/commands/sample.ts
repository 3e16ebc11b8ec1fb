// `longtail sample`: pictures from prompts or from a list of items, with the base model, a run's transformer, or a LoRA at
// any strength. Each picture is a PNG with its parameters inside; what exists already is skipped.

import { basename, join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { fillTemplate } from "../../data/prompts.ts";
import {
  decodePng,
  encodePng,
  fromPlanes,
  type Picture as PngPicture,
  pictureGrid,
  toPlanes,
} from "../../formats/png.ts";
import { TOKEN_PIXELS } from "../../models/pipeline.ts";
import { loadItems } from "../../runs/align/items.ts";
import type { Config } from "../../runs/config/schema.ts";
import { deviceLine } from "../../runs/device.ts";
import { classifierFreeScale, layoutOf } from "../../runs/model_files.ts";
import { fileIdentity } from "../../training/file_identity.ts";
import { numberFlag } from "../choice.ts";
import type { Command, CommandContext } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { PROFILE_OPTION, profiled } from "../profile.ts";
import { withRunDevice } from "../run_device.ts";
import { drawMissing, openSampler, type Picture } from "../sample/sampler.ts";
import { startPictureOf } from "../sample/start_picture.ts";
import { sizeOf, weightsOf } from "../sample/weights.ts";

export const command: Command = {
  name: "sample",
  summary: "draw pictures from prompts or items, also with a run's weights",
  usage: '["prompt" ...] [--items=FILE|embedded] [--weights=RUN|FILE] [--strength=1] [--image=FILE]',
  options: [
    {
      name: "items",
      value: "FILE",
      summary: 'items instead of prompts: a file, or "embedded" for those that come along',
    },
    {
      name: "weights",
      value: "PATH",
      summary: "a run, a transformer file, or a LoRA, DoRA or LoKr file of any style; default the base model",
    },
    {
      name: "strength",
      value: "NUMBER",
      summary: "strength of the adapter; default 1. With --image alone, that of the picture",
    },
    {
      name: "image",
      value: "FILE",
      summary: "PNG or JPEG to start from instead of noise alone; it is cut to the size drawn",
    },
    {
      name: "image-strength",
      value: "NUMBER",
      summary: "share of the steps that redraw the picture, 0 to 1; default 0.6",
    },
    { name: "size", value: "WxH", summary: "width and height in pixels; default the model's own" },
    { name: "count", value: "N", summary: "pictures for each prompt; default 2" },
    { name: "output", value: "PATH", summary: "folder for the pictures; default samples" },
    PROFILE_OPTION,
  ],
  description: "Writes one PNG a picture (prompt, seed and weights are stored in it) and grid.png with all of them.",
  positionals: [0, 64],
  configuration: true,
  examples: [
    ['longtail sample "noto icon of taco" --count=4', "four pictures of the base model"],
    ["longtail sample --items=embedded --weights=runs/first", "all embedded items with a run's weights"],
    ['longtail sample "icon of taco" --image=taco.png --strength=0.6', "a picture drawn anew"],
    ['longtail sample "icon of sari" --weights=first.lora.safetensors --strength=0.5', "half of a LoRA"],
  ],
  run: sample,
};

async function sample(context: CommandContext): Promise<number> {
  const { flags } = context.arguments;
  const { files } = context;
  const loaded = await context.loadConfig({ preset: "embedded" });
  const config = await withLocalModels(files, loaded.config, context.emit);
  const weights = await weightsOf(context);
  const output = typeof flags["output"] === "string" ? flags["output"] : "samples";
  const geometry = await sizeOf(context, config);
  const start = await startPictureOf(context, config.sample.steps, geometry);
  const width = geometry.columns * TOKEN_PIXELS;
  const height = geometry.rows * TOKEN_PIXELS;
  const classifierFree = classifierFreeScale(config, await layoutOf(files, config));
  const pictures = await wanted(context, config, {
    seed: String(config.sample.seed),
    steps: String(config.sample.steps),
    shift: String(config.sample.shift),
    guidance: String(config.sample.guidance),
    ...(classifierFree === 1 ? {} : { cfg: String(classifierFree), negative_prompt: config.sample.negative_prompt }),
    size: `${width}x${height}`,
    model: basename(config.model.pipeline),
    weights: weights.path ? basename(weights.path) : "base",
    // Two files of one name are told apart, and a run that was continued from what it was before.
    ...(weights.path ? { weights_id: (await fileIdentity(files, weights.path)).slice(0, 16) } : {}),
    ...(weights.layers ? { strength: String(weights.strength) } : {}),
    ...(start ? { image_id: start.id.slice(0, 16), image_strength: String(start.strength) } : {}),
    software: "longtail",
  });
  const cells = new Map<Picture, PngPicture>();
  for (const picture of pictures) {
    const found = await existing(files, join(output, `${picture.name}.png`), picture);
    if (found) cells.set(picture, found);
  }
  const missing = pictures.filter((p) => !cells.has(p));
  if (missing.length > 0) {
    await withRunDevice(config, context.emit, async (gpu) => {
      context.emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
      const sampler = await openSampler(context, config, gpu, geometry, missing, weights, start);
      const take = async (picture: Picture, planes: Float32Array) => {
        const image = fromPlanes(planes, width, height, picture.text);
        const path = join(output, `${picture.name}.png`);
        await files.writeAtomic(path, encodePng(image));
        context.emit({ kind: "sample", step: 0, path, seed: config.sample.seed });
        cells.set(picture, image);
      };
      const { emit } = context;
      const { session } = sampler;
      await profiled({ context, gpu, session, emit, path: join(output, "profile.json") }, () =>
        drawMissing(context, config, sampler, missing, take),
      );
      sampler.session.close();
      await sampler.pipeline.close();
    });
    const all = pictures.map((p) => toPlanes(cells.get(p)!));
    await files.writeAtomic(
      join(output, "grid.png"),
      encodePng(pictureGrid(all, width, height, { columns: Math.min(8, all.length), zoom: 2 })),
    );
  }
  const skipped = pictures.length - missing.length;
  context.result(
    { output, drawn: missing.length, skipped },
    `${missing.length} ${missing.length === 1 ? "picture" : "pictures"} in ${output}${skipped ? `, ${skipped} were there already` : ""}`,
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
