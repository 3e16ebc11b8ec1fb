// Prompts that are encoded already: a folder of `longtail preprocess` or of SRPO's preprocessing script in place of a list of
// items. Captions are the prompts, no text encoder is opened, and everything that a run will read is looked at before it.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { PromptEmbeddings } from "../../data/prompt_embeddings.ts";
import { fillTemplate } from "../../data/prompts.ts";
import type { TextEmbedding } from "../../models/velocity_network.ts";
import { textShape } from "../caption_store.ts";
import type { Config } from "../config/schema.ts";
import { layoutOf } from "../model_files.ts";
import type { Phases } from "../phases.ts";

/** A caption is the whole prompt: templates and styles were filled in when it was encoded. */
const TEMPLATE = "{caption}";

/** The folder that data.items names, or null where it is a file of items or "embedded". */
export async function openStoredPrompts(files: FileStore, { data }: Config): Promise<PromptEmbeddings | null> {
  const { items } = data;
  if (items === "embedded" || /\.(jsonl?|txt)$/.test(items)) return null;
  const isFolder = (await PromptEmbeddings.isFolder(files, items)) || (await files.list(items)).length > 0;
  // A name without an ending is meant as a folder: the message is about one.
  const meant = isFolder || !/\.[^/\\]*$/.test(items.split(/[/\\]/).at(-1)!);
  return meant ? await PromptEmbeddings.open(files, items) : null;
}

/**
 * The configuration of a run whose prompts are `stored`: templates that would make other prompts of them give way.
 * @throws LongtailError E-CFG-055 where attributes were to be put into the prompts
 */
export function withStoredPrompts(config: Config, stored: PromptEmbeddings | null): Config {
  if (!stored) return config;
  if (config.align.pair === "prompt-only")
    throw new LongtailError("E-CFG-055", {
      where: "align.pair",
      what: "prompt-only puts attributes into prompts, and these are encoded already",
      why: `${stored.folder} holds embeddings of its captions alone`,
      fix: 'encode prompts with the attributes in them (longtail preprocess --template), and use align.pair = "none"',
    });
  const data = { ...config.data, prompt: TEMPLATE, styles: [] };
  return { ...config, data, eval: { ...config.eval, styles: [] } };
}

/**
 * Reads every embedding of `prompts` once and compares it with what the transformer takes.
 * @returns reads them again, when they are asked for
 * @throws LongtailError E-DATA-075 … 076 and what `PromptEmbeddings.load` says; the signal's reason where it is aborted
 */
export async function storedPrompts(
  inputs: { files: FileStore; config: Config; stored: PromptEmbeddings; phases: Phases; signal: AbortSignal },
  prompts: ReadonlySet<string>,
): Promise<(prompt: string) => Promise<TextEmbedding>> {
  const { stored, phases, signal } = inputs;
  const layout = await layoutOf(inputs.files, inputs.config);
  const taken = textShape(layout);
  const places = new Map<string, number>();
  for (const [i, item] of stored.items.entries()) {
    const prompt = fillTemplate(TEMPLATE, item);
    if (!places.has(prompt)) places.set(prompt, i);
  }
  const load = async (prompt: string): Promise<TextEmbedding> => {
    const at = places.get(prompt)!;
    const { states, pooled, length, width } = await stored.load(at);
    const fits = length === taken.length && width === taken.width && pooled.length === taken.pooled;
    if (fits) return { states, pooled };
    throw new LongtailError("E-DATA-076", {
      what: `the embedding has ${length} tokens of ${width} numbers and a pooled vector of ${pooled.length}`,
      where: stored.items[at]!.where,
      why: `the transformer takes ${taken.length} tokens of ${taken.width} and a pooled vector of ${taken.pooled} (${layout.transformer.configPath})`,
      fix: "encode the prompts with the text encoders that belong to the transformer: longtail preprocess",
    });
  };
  await phases.timed("check prompt embeddings", prompts.size, "prompts", async (tick) => {
    let done = 0;
    for (const prompt of prompts) {
      if (signal.aborted) throw signal.reason;
      await load(prompt);
      tick(++done);
    }
  });
  return load;
}
