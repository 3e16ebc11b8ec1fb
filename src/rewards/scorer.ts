// A CLIP model of any public layout as a reward or as a held-out judge: weights, token table (compact, whole, or left in its
// file), tokenizer, and the host-side text features that a run computes once and keeps.

import type { FileStore } from "../base/files.ts";
import type { Storage } from "../base/quantize.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { CLIP_END, CLIP_PADDING, type ClipTokenizer } from "../data/tokenizers/clip.ts";
import { type ClipCheckpoint, openClipCheckpoint } from "../models/clip/checkpoint.ts";
import { OpenClip, type Towers } from "../models/clip/open_clip.ts";
import { DEVICE_TABLE_BYTES, FileRows, TokenRows } from "../models/token_rows.ts";
import { checkParameters, loadParameters, Parameters } from "../nn/parameters.ts";
import type { Plan, Session } from "../tensor/session.ts";
import { BYTES, type DType } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { SCALED_REWARD_DIVISOR } from "./clip_reward.ts";

export type RewardKind = "hps" | "clip" | "pickscore";

export interface ScorerOptions {
  name: string;
  /** A folder of open_clip or of transformers' CLIPModel, or a weights file alone (HPS v2.1's .pt). */
  folder: string;
  /** What reads texts; a picture tower alone needs none. */
  tokenizer?: ClipTokenizer;
  /** Halves of the model that are declared and loaded; both where absent. */
  towers?: Towers;
  precision?: DType;
  /** Largest token table that goes to the device whole; rows of larger ones are read from the file. */
  deviceTableBytes?: number;
  /** From how many bytes of f32 on matrices stay the halves that their file holds: the same values. */
  halvesFromBytes?: number;
}

/** ViT-H/14 has 3.9 GB of matrices in f32; ViT-L/14 keeps to f32. */
const HALVES_FROM_BYTES = 2 * 2 ** 30;

/** How texts become rows of the text tower's table. */
interface TextReading {
  tokens: TokenRows;
  /** A token table that stays in its file. */
  table: FileRows | null;
  tokenizer: ClipTokenizer;
}

export class ClipScorer {
  readonly name: string;
  readonly model: OpenClip;
  /** Width of the shared feature space. */
  readonly width: number;
  /** Where the weights are from, and what was assumed about them. */
  readonly checkpoint: Omit<ClipCheckpoint, "source">;
  /** Texts with words that a compact token table does not hold. */
  readonly unknown = new Set<string>();
  /** Natural logarithm of the factor that the model was trained to put on cosines. */
  readonly logitScale: number;
  private readonly source: RangedSource;
  private readonly reading: TextReading | null;
  private text: { plan: Plan; batch: number; tokens: Variable; ends: Variable; features: Variable } | null = null;
  private readonly cache = new Map<string, Float32Array>();

  private constructor(
    name: string,
    model: OpenClip,
    { source, ...checkpoint }: ClipCheckpoint,
    reading: TextReading | null,
    logitScale: number,
  ) {
    this.name = name;
    this.model = model;
    this.width = model.config.vision.embed;
    this.source = source;
    this.checkpoint = checkpoint;
    this.reading = reading;
    this.logitScale = logitScale;
  }

  /**
   * Declares a model in a pool of its own; only headers are read.
   * @throws LongtailError as `openClipCheckpoint` and `checkParameters`
   */
  static async open(files: FileStore, session: Session, options: ScorerOptions): Promise<ClipScorer> {
    const { name, tokenizer, towers = "both", precision = "f32" } = options;
    const checkpoint = await openClipCheckpoint(files, options.folder);
    const { source } = checkpoint;
    try {
      let { config } = checkpoint;
      let reading: TextReading | null = null;
      if (towers !== "picture") {
        if (!tokenizer) throw new Error(`${name}: a text tower needs a tokenizer`);
        const tokens = await TokenRows.ofSource(source, "token_embedding");
        const { text } = config;
        config = { ...config, text: { ...text, rows: tokens.count } };
        const bytes = tokens.count * text.width * BYTES[precision];
        const elsewhere = bytes > (options.deviceTableBytes ?? DEVICE_TABLE_BYTES);
        const table = elsewhere
          ? new FileRows(files, checkpoint.path, checkpoint.table, [tokens.count, text.width])
          : null;
        reading = { tokens, table, tokenizer };
      }
      // Of the whole model, so that a tower is the same bits alone.
      const storage = halves(source, precision, options.halvesFromBytes ?? HALVES_FROM_BYTES);
      const parameters = new Parameters(session.pool(name, "weights"), {
        dtype: precision,
        ...(storage ? { storage } : {}),
      });
      const model = new OpenClip(parameters, config, { towers, tableElsewhere: Boolean(reading?.table) });
      checkParameters(parameters, source);
      const logitScale = source.has("logit_scale") ? (await source.load("logit_scale"))[0]! : Math.log(100);
      return new ClipScorer(name, model, checkpoint, reading, logitScale);
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** Factor on a cosine that makes it this kind of reward: SRPO's scales. */
  factor(kind: RewardKind): number {
    return kind === "hps" ? 1 : this.scale(kind) / SCALED_REWARD_DIVISOR;
  }

  /** Factor on a cosine in tables of scores, as the models' own libraries print them. */
  scale(kind: RewardKind): number {
    return kind === "hps" ? 1 : Math.exp(this.logitScale);
  }

  /** Traces the text tower for `batch` texts at a time. */
  planText(session: Session, batch: number): void {
    const { positions: length, width } = this.model.config.text;
    const tokens = this.reading?.table
      ? session.data(`${this.name}.text.tokens`, [batch, length, width])
      : session.data(`${this.name}.text.rows`, [batch, length], "u32");
    const ends = session.data(`${this.name}.text.ends`, [batch], "u32");
    const features = session.data(`${this.name}.text.features`, [batch, this.width]);
    const plan = session.plan(`${this.name} text`, (graph) => {
      graph.assign(features, this.model.textFeatures(graph, graph.read(tokens), graph.read(ends)));
    });
    this.text = { plan, batch, tokens, ends, features };
  }

  async loadWeights(session: Session): Promise<void> {
    await loadParameters(session, this.model.parameters, this.source);
    await this.close();
  }

  /** Closes the weights file of a model that is not to be loaded. */
  async close(): Promise<void> {
    await this.source.close();
  }

  /** Unit text features, one Float32Array of `width` each; each text is computed once. */
  async textFeatures(
    session: Session,
    texts: readonly string[],
    onDone?: (done: number) => void,
  ): Promise<Float32Array[]> {
    if (!this.text || !this.reading) throw new Error(`${this.name}: planText was not called`);
    const { tokens: rows, table, tokenizer } = this.reading;
    const { plan, batch, tokens, ends, features } = this.text;
    const length = this.model.config.text.positions;
    const missing = [...new Set(texts)].filter((text) => !this.cache.has(text));
    for (let at = 0; at < missing.length; at += batch) {
      const part = missing.slice(at, at + batch);
      const rowData = new Uint32Array(batch * length);
      const endData = new Uint32Array(batch);
      part.forEach((text, i) => {
        const ids = [...tokenizer.encodeFixed(text, length, CLIP_PADDING.transformers)];
        const missingIds = new Set<number>();
        rowData.set(rows.rows(ids, missingIds), i * length);
        if (missingIds.size > 0) this.unknown.add(text);
        endData[i] = ids.indexOf(CLIP_END);
      });
      session.write(tokens, table ? await table.gather(rowData) : rowData);
      session.write(ends, endData);
      await session.replay(plan);
      const values = await session.read(features);
      part.forEach((text, i) => this.cache.set(text, values.slice(i * this.width, (i + 1) * this.width)));
      onDone?.(at + part.length);
    }
    return texts.map((text) => this.cache.get(text)!);
  }
}

/** The storage of a large model's matrices where all of them are halves of one kind in their file. */
function halves(source: RangedSource, precision: DType, fromBytes: number): Storage | null {
  if (precision !== "f32") return null;
  const matrices = [...source.names()].filter(
    (name) => /resblocks\..*weight$/.test(name) && source.shape(name).length > 1,
  );
  const elements = matrices.reduce((n, name) => n + source.shape(name).reduce((a, b) => a * b, 1), 0);
  if (4 * elements <= fromBytes) return null;
  for (const [dtype, storage] of [
    ["F16", "f16"],
    ["BF16", "bf16"],
  ] as const)
    if (matrices.every((name) => source.dtype(name) === dtype)) return storage;
  return null;
}
