// `longtail preprocess`: prompts in, text embeddings out, one file a prompt. The folder has the layout of SRPO's reference
// scripts, so that prompts which were encoded for one can be trained on with the other.

import { LongtailError } from "../../base/errors.ts";
import { readPrompts } from "../../data/prompts.ts";
import { loadItems } from "../../runs/align/items.ts";
import { deviceLine } from "../../runs/device.ts";
import { choice } from "../choice.ts";
import type { Command } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { encode, type PreprocessOptions, prepare, unreadable, writeList } from "../preprocess/run.ts";
import { withRunDevice } from "../run_device.ts";

export const command: Command = {
  name: "preprocess",
  summary: "encode prompts once and keep their text embeddings",
  usage: "PROMPTS --output=DIR [--format=safetensors|torch] [--dtype=f32|bf16] [--section.key=value ...]",
  options: [
    { name: "output", value: "PATH", summary: "folder for the embeddings; what is there already is kept" },
    { name: "format", value: "FORM", summary: "safetensors (default), or torch for the .pt files of SRPO's scripts" },
    { name: "dtype", value: "TYPE", summary: "f32 or bf16; default f32, and bf16 with --format=torch" },
    {
      name: "template",
      value: "TEXT",
      summary: 'text made of each item, "An image of {item}"; default its caption',
    },
  ],
  description:
    'PROMPTS is a .txt file with one prompt a line, a .jsonl or .json file of items, or "embedded". The folder gets ' +
    "prompt_embed, pooled_prompt_embeds, text_ids and videos2caption2.json. It can be stopped and started again.",
  positionals: [1, 1],
  configuration: true,
  examples: [
    ["longtail preprocess prompts.txt --output=texts --model.pipeline=FLUX.1-dev", "for another model"],
    ["longtail preprocess prompts.txt --output=data/rl_embeddings --format=torch", "files for SRPO's own trainer"],
  ],
  async run(context) {
    const { flags, positionals } = context.arguments;
    const { files, emit } = context;
    const loaded = await context.loadConfig({ preset: "embedded" });
    if (typeof flags["output"] !== "string")
      throw new LongtailError("E-ARG-080", {
        what: "the folder for the embeddings is missing",
        where: "--output",
        fix: "as in --output=embeddings",
      });
    const config = await withLocalModels(files, loaded.config, emit);
    const form = choice(flags["format"], "format", ["safetensors", "torch"]);
    const dtypes = form === "torch" ? (["bf16", "f32"] as const) : (["f32", "bf16"] as const);
    const options: PreprocessOptions = {
      output: flags["output"],
      template: typeof flags["template"] === "string" ? flags["template"] : "{caption}",
      form,
      dtype: choice<"f32" | "bf16">(flags["dtype"], "dtype", dtypes) === "f32" ? "F32" : "BF16",
    };
    const source = positionals[0]!;
    const items =
      source === "embedded"
        ? (await loadItems(files, { ...config, data: { ...config.data, items: source, pictures: "none" } })).items
        : await readPrompts(files, source);
    const work = await prepare(files, config, items, options);
    const foreign = unreadable(work.entries);
    if (foreign > 0)
      emit({
        kind: "warning",
        code: "E-DATA-074",
        text: `${foreign} prompts have Chinese, Japanese or Korean characters, which T5's vocabulary cannot express`,
      });
    if (work.missing.length > 0)
      await withRunDevice(config, emit, async (gpu) => {
        emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
        await encode(context, config, gpu, work);
      });
    const list = await writeList(files, work);
    const kept = items.length - work.missing.length;
    context.result(
      { output: options.output, list, encoded: work.missing.length, kept },
      `${work.missing.length} prompts encoded, ${kept} were there already: ${list}`,
    );
    return 0;
  },
};
