// Prompts through the text encoders into files, resumable: a record beside the files says which encoders made them and of
// which captions, and only what does not agree with it is encoded again.

import type { FileStore } from "../../base/files.ts";
import {
  type EmbeddingForm,
  type EmbeddingType,
  embeddingPaths,
  type Part,
  partsOf,
  writeEmbedding,
  writeEmbeddingIndex,
} from "../../data/prompt_embeddings.ts";
import { fillTemplate, type PromptItem } from "../../data/prompts.ts";
import type { Gpu } from "../../gpu/device.ts";
import { familyModel } from "../../models/family.ts";
import { Pipeline } from "../../models/pipeline.ts";
import type { Config } from "../../runs/config/schema.ts";
import { checkMemoryCap, checkPrecision } from "../../runs/device.ts";
import { layoutOf, modelFiles } from "../../runs/model_files.ts";
import { Phases } from "../../runs/phases.ts";
import { unknownText } from "../../runs/text_warnings.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { PromptEncoder } from "../../training/prompt_encoder.ts";
import { textIdentity } from "../../training/text_identity.ts";
import type { CommandContext } from "../command.ts";

const RECORD = "preprocess.json";
/** Most texts that go through the encoders at a time. */
const TEXT_BATCH = 16;

export interface PreprocessOptions {
  output: string;
  template: string;
  form: EmbeddingForm;
  dtype: EmbeddingType;
}

interface Entry {
  stem: string;
  caption: string;
  fields: Readonly<Record<string, unknown>>;
}

interface EncodingRecord {
  /** Everything besides the caption that decides the numbers. */
  encoders: Record<string, string | number>;
  captions: string[];
}

/** What has to be encoded, in order; `write` ends it with the list of captions. */
export interface Preprocessing {
  entries: readonly Entry[];
  missing: readonly number[];
  options: PreprocessOptions;
  /** Files of each prompt; models without pooled text have fewer. */
  parts: readonly Part[];
}

/** Looks at what is there and takes away what does not belong to these prompts and encoders. */
export async function prepare(
  files: FileStore,
  config: Config,
  items: readonly PromptItem[],
  options: PreprocessOptions,
): Promise<Preprocessing> {
  const entries = items.map((item, i): Entry => {
    const caption = fillTemplate(options.template, item);
    return { stem: String(i), caption, fields: item.fields };
  });
  const { identity: encoders, parts } = await encodersOf(files, config, options);
  const before = await readRecord(files, `${options.output}/${RECORD}`);
  const same = before !== null && JSON.stringify(before.encoders) === JSON.stringify(encoders);
  const missing: number[] = [];
  for (const [i, { stem, caption }] of entries.entries()) {
    const paths = Object.values(embeddingPaths(options.output, stem, options.form, parts));
    const there = await Promise.all(paths.map((path) => files.exists(path)));
    if (same && before.captions[i] === caption && there.every(Boolean)) continue;
    missing.push(i);
    // Before the record says that they are of this caption: a stop in between must not make them count.
    for (const [at, path] of paths.entries()) if (there[at]) await files.remove(path);
  }
  const record: EncodingRecord = { encoders, captions: entries.map(({ caption }) => caption) };
  await files.writeAtomic(`${options.output}/${RECORD}`, `${JSON.stringify(record, null, 1)}\n`);
  return { entries, missing, options, parts };
}

async function encodersOf(files: FileStore, config: Config, { form, dtype }: PreprocessOptions) {
  const layout = await layoutOf(files, config);
  const identity = {
    ...(await textIdentity(files, layout, modelFiles(config).tokenizers)),
    precision: config.device.precision,
    form,
    dtype,
  };
  return { identity, parts: partsOf(familyModel(layout).config.pooledWidth > 0) };
}

async function readRecord(files: FileStore, path: string): Promise<EncodingRecord | null> {
  if (!(await files.exists(path))) return null;
  try {
    const value = JSON.parse(await files.readText(path)) as Partial<EncodingRecord>;
    return value.encoders && Array.isArray(value.captions) ? (value as EncodingRecord) : null;
  } catch (error) {
    // A record that cannot be read makes the files of unknown origin.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Encodes what is missing and writes the list of captions. */
export async function encode(
  { files, emit, signal }: Pick<CommandContext, "files" | "emit" | "signal">,
  config: Config,
  gpu: Gpu,
  { entries, missing, options }: Preprocessing,
): Promise<void> {
  const target = targetOf(gpu);
  checkPrecision(config, target);
  const session = new Session(target);
  const phases = new Phases(emit);
  try {
    const pipeline = await Pipeline.open(files, session, {
      ...modelFiles(config),
      parts: { transformer: false, encoder: false, decoder: false },
      precision: config.device.precision,
    });
    const batch = Math.min(missing.length, pipeline.textBatch(TEXT_BATCH, target.maxBindingBytes));
    const encoder = new PromptEncoder(session, pipeline, batch, false);
    checkMemoryCap(config, session.memory().total);
    await phases.timed("compile encoders", session.plans.length, "plans", (tick) => session.open(gpu, tick));
    await pipeline.loadWeights(session);
    await phases.timed("encode prompts", missing.length, "prompts", async (tick) => {
      for (let at = 0; at < missing.length; at += batch) {
        if (signal.aborted) throw signal.reason;
        const part = missing.slice(at, at + batch).map((i) => entries[i]!);
        const embeddings = await encoder.encode(part.map(({ caption }) => caption));
        for (const [i, { stem }] of part.entries())
          await writeEmbedding(files, options.output, stem, embeddings[i]!, pipeline.config.jointWidth, options);
        tick(at + part.length);
      }
    });
    const told = (code: string, texts: ReadonlySet<string>, what: string) => {
      if (texts.size === 0) return;
      const named = [...texts].slice(0, 3).map((text) => JSON.stringify(text.slice(0, 80)));
      emit({ kind: "warning", code, text: `${texts.size} prompts ${what}: ${named.join(", ")}` });
    };
    if (encoder.unknown.size > 0) emit({ kind: "warning", code: "E-DATA-060", text: unknownText(encoder.unknown) });
    told("E-DATA-061", encoder.cut, `have more than ${pipeline.textLength} tokens and are read to there`);
  } finally {
    session.close();
  }
}

export const writeList = (files: FileStore, { entries, options, parts }: Preprocessing) =>
  writeEmbeddingIndex(files, options.output, entries, options.form, parts);

/** T5-XXL's vocabulary has no Chinese, Japanese or Korean characters: each reads as «unknown». */
const CJK = /[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]/;

export function unreadable(entries: readonly { caption: string }[]): number {
  return entries.filter(({ caption }) => CJK.test(caption)).length;
}
