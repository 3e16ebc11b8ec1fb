// An open_clip model from a folder, as a reward or as a held-out judge: weights, compact token table, tokenizer, and the
// host-side text features that a run computes once and keeps.

import type { FileStore } from "../base/files.ts";
import { CLIP_END, CLIP_PADDING, type ClipTokenizer } from "../data/tokenizers/clip.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { OpenClip, openClipConfig } from "../models/clip/open_clip.ts";
import { TokenRows } from "../models/token_rows.ts";
import { readJson, tensorSource } from "../models/weights_file.ts";
import { checkParameters, loadParameters, Parameters } from "../nn/parameters.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { DType } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { SCALED_REWARD_DIVISOR } from "./clip_reward.ts";

export type RewardKind = "hps" | "clip" | "pickscore";

export class ClipScorer {
  readonly name: string;
  readonly model: OpenClip;
  /** Width of the shared feature space. */
  readonly width: number;
  private readonly file: Safetensors;
  private readonly tokens: TokenRows;
  private readonly tokenizer: ClipTokenizer;
  private readonly logitScale: number;
  private text: { plan: Plan; batch: number; rows: Variable; ends: Variable; features: Variable } | null = null;
  private readonly cache = new Map<string, Float32Array>();

  private constructor(
    name: string,
    model: OpenClip,
    file: Safetensors,
    tokens: TokenRows,
    tokenizer: ClipTokenizer,
    logitScale: number,
  ) {
    this.name = name;
    this.model = model;
    this.width = model.config.vision.embed;
    this.file = file;
    this.tokens = tokens;
    this.tokenizer = tokenizer;
    this.logitScale = logitScale;
  }

  /** Declares the model of `folder` (open_clip_config.json, open_clip_model.safetensors) in a pool of its own. */
  static async open(
    files: FileStore,
    session: Session,
    options: { name: string; folder: string; tokenizer: ClipTokenizer; precision?: DType },
  ): Promise<ClipScorer> {
    const configPath = `${options.folder}/open_clip_config.json`;
    const json = await readJson(files, configPath);
    const file = await Safetensors.open(files, `${options.folder}/open_clip_model.safetensors`);
    const tokens = await TokenRows.of(file, "token_embedding");
    const parameters = new Parameters(session.pool(options.name, "weights"), { dtype: options.precision ?? "f32" });
    const model = new OpenClip(parameters, openClipConfig(json, configPath, tokens.count));
    checkParameters(parameters, tensorSource(file));
    const logitScale = file.has("logit_scale") ? (await file.readF32("logit_scale"))[0]! : Math.log(100);
    return new ClipScorer(options.name, model, file, tokens, options.tokenizer, logitScale);
  }

  /** Factor on a cosine that makes it this kind of reward. */
  factor(kind: RewardKind): number {
    return kind === "hps" ? 1 : Math.exp(this.logitScale) / SCALED_REWARD_DIVISOR;
  }

  /** Traces the text tower for `batch` texts at a time. */
  planText(session: Session, batch: number): void {
    const length = this.model.config.text.positions;
    const rows = session.data(`${this.name}.text.rows`, [batch, length], "u32");
    const ends = session.data(`${this.name}.text.ends`, [batch], "u32");
    const features = session.data(`${this.name}.text.features`, [batch, this.width]);
    const plan = session.plan(`${this.name} text`, (graph) => {
      graph.assign(features, this.model.textFeatures(graph, graph.read(rows), graph.read(ends)));
    });
    this.text = { plan, batch, rows, ends, features };
  }

  async loadWeights(session: Session): Promise<void> {
    await loadParameters(session, this.model.parameters, tensorSource(this.file));
    await this.file.close();
  }

  /** Unit text features, one Float32Array of `width` each; each text is computed once. */
  async textFeatures(session: Session, texts: readonly string[]): Promise<Float32Array[]> {
    if (!this.text) throw new Error(`${this.name}: planText was not called`);
    const { plan, batch, rows, ends, features } = this.text;
    const length = this.model.config.text.positions;
    const missing = [...new Set(texts)].filter((text) => !this.cache.has(text));
    for (let at = 0; at < missing.length; at += batch) {
      const part = missing.slice(at, at + batch);
      const rowData = new Uint32Array(batch * length);
      const endData = new Uint32Array(batch);
      part.forEach((text, i) => {
        const ids = [...this.tokenizer.encodeFixed(text, length, CLIP_PADDING.transformers)];
        rowData.set(this.tokens.rows(ids), i * length);
        endData[i] = ids.indexOf(CLIP_END);
      });
      session.write(rows, rowData);
      session.write(ends, endData);
      session.run(plan);
      const values = await session.read(features);
      part.forEach((text, i) => this.cache.set(text, values.slice(i * this.width, (i + 1) * this.width)));
    }
    return texts.map((text) => this.cache.get(text)!);
  }
}
