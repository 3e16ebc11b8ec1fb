// FLUX.1's two text encoders with their tokenizers: CLIP's pooled vector says what the whole picture is, T5's states are
// what the picture's tokens attend to. Tables may be compact, and large ones stay in their files (see token_rows.ts).

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { Storage } from "../base/quantize.ts";
import { CLIP_END, CLIP_PADDING, ClipTokenizer } from "../data/tokenizers/clip.ts";
import { T5Tokenizer } from "../data/tokenizers/t5.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { Parameters } from "../nn/parameters.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import { BYTES, type DType, type Shape } from "../tensor/shape.ts";
import { ClipTextModel } from "./clip/text.ts";
import type { FluxConfig } from "./flux/config.ts";
import { safetensorsSource } from "./mapped_source.ts";
import type { PipelineLayout } from "./pipeline_layout.ts";
import { bucketTable, T5Encoder, t5Config } from "./t5/encoder.ts";
import { DEVICE_TABLE_BYTES, FileRows, TokenRows } from "./token_rows.ts";
import type { WeightsPart } from "./weights_file.ts";

export interface Tokenized {
  /** Rows of the CLIP table [n, clipLength] and positions of the end tokens [n]. */
  clip: Uint32Array;
  ends: Uint32Array;
  /** Rows of the T5 table [n, textLength]. */
  t5: Uint32Array;
  /** Texts with words that the embedding tables do not hold. */
  unknown: string[];
  /** Texts with more tokens than T5 reads; CLIP's 77 cut every longer prompt, which is usual. */
  cut: string[];
}

/** What an encoder reads of a batch: rows of its table (u32), or the embeddings themselves where the table is in a file. */
export interface TokenInput {
  shape: Shape;
  dtype: "u32" | "f32";
}

interface Tokens {
  clip: ClipTokenizer;
  t5: T5Tokenizer;
  clipRows: TokenRows;
  t5Rows: TokenRows;
  /** Tables that are not on the device. */
  clipTable: FileRows | null;
  t5Table: FileRows | null;
}

export interface TextEncoderOptions {
  tokenizers: string;
  precision: DType;
  transformer: FluxConfig;
  /** Largest embedding table that goes to the device whole, in bytes. */
  deviceTableBytes?: number;
  /** An encoder whose matrices would take more bytes than this in f32 keeps the halves of its file: the same values. */
  halvesFromBytes?: number;
}

/** CLIP has 0.4 GB of matrices in f32, T5-XXL 18.5 GB. */
const HALVES_FROM_BYTES = 1 << 30;

export class TextEncoders {
  /** What has to be loaded. */
  readonly parts: readonly WeightsPart[];
  private readonly layout: PipelineLayout;
  private readonly clip: ClipTextModel;
  private readonly t5: T5Encoder;
  private readonly tokens: Tokens;

  private constructor(
    layout: PipelineLayout,
    models: { clip: ClipTextModel; t5: T5Encoder },
    tokens: Tokens,
    parts: readonly WeightsPart[],
  ) {
    this.layout = layout;
    this.clip = models.clip;
    this.t5 = models.t5;
    this.tokens = tokens;
    this.parts = parts;
  }

  /**
   * Reads headers and declares the weights in a pool of the session's.
   * @throws LongtailError E-FILE-032 where an encoder's width is not what the transformer takes
   */
  static async open(
    files: FileStore,
    session: Session,
    layout: PipelineLayout,
    options: TextEncoderOptions,
  ): Promise<TextEncoders> {
    const pool = session.pool("text encoders", "weights");
    const clipFile = await Safetensors.open(files, layout.clip.weights);
    // transformers 5 saves a lone text model without the prefix that a whole CLIP model has.
    const bare = (name: string) => (clipFile.has(name) ? name : name.replace(/^text_model\./, ""));
    const clipName = bare("text_model.embeddings.token_embedding.weight");
    const clipRows = await TokenRows.of(clipFile, clipName.slice(0, -7));
    const number = (key: string, fallback: number) => (layout.clip.config[key] as number | undefined) ?? fallback;
    const width = number("hidden_size", 768);
    const table = (path: string, name: string, shape: [number, number]) =>
      shape[0] * shape[1] * BYTES[options.precision] > (options.deviceTableBytes ?? DEVICE_TABLE_BYTES)
        ? new FileRows(files, path, name, shape)
        : null;
    const clipTable = table(layout.clip.weights, clipName, [clipRows.count, width]);
    const clipParameters = new Parameters(pool, parameterOptions(clipFile, options));
    const clip = new ClipTextModel(
      clipParameters,
      {
        rows: clipRows.count,
        positions: number("max_position_embeddings", layout.clipLength),
        width,
        heads: number("num_attention_heads", 12),
        layers: number("num_hidden_layers", 12),
        inner: number("intermediate_size", 3072),
        activation: (layout.clip.config["hidden_act"] as string | undefined) ?? "quick_gelu",
      },
      clipTable !== null,
    );
    const t5File = await Safetensors.open(files, layout.t5.weights);
    // The table is tied and public checkpoints hold it under either name.
    const shared = (name: string) =>
      name === "shared.weight" && !t5File.has(name) ? "encoder.embed_tokens.weight" : name;
    const t5Name = shared("shared.weight");
    const t5Rows = await TokenRows.of(t5File, t5Name.slice(0, -7));
    const t5Parameters = new Parameters(pool, parameterOptions(t5File, options));
    const config = t5Config(layout.t5.config, t5Rows.count);
    const t5Table = table(layout.t5.weights, t5Name, [t5Rows.count, config.width]);
    const t5 = new T5Encoder(t5Parameters, config, t5Table !== null);
    // Tables that stay in their files are not among the parameters that are checked.
    if (clipTable) clipFile.expectShape(clipName, [clipRows.count, width]);
    if (t5Table) t5File.expectShape(t5Name, [t5Rows.count, config.width]);
    const tokens = {
      clip: await ClipTokenizer.load(files, `${options.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5: await T5Tokenizer.load(files, `${options.tokenizers}/t5/tokenizer.json`),
      clipRows,
      t5Rows,
      clipTable,
      t5Table,
    };
    checkWidth(layout, "text_encoder", "pooled_projection_dim", width, options.transformer.pooledWidth);
    checkWidth(layout, "text_encoder_2", "joint_attention_dim", config.width, options.transformer.jointWidth);
    return new TextEncoders(layout, { clip, t5 }, tokens, [
      { parameters: clipParameters, source: safetensorsSource(clipFile), rename: bare },
      { parameters: t5Parameters, source: safetensorsSource(t5File), rename: shared },
    ]);
  }

  /** What `trace` reads of a batch of prompts. */
  inputs(batch: number): { clip: TokenInput; t5: TokenInput } {
    const { clipLength, t5Length } = this.layout;
    const input = (length: number, table: FileRows | null): TokenInput =>
      table ? { shape: [batch, length, table.width], dtype: "f32" } : { shape: [batch, length], dtype: "u32" };
    return { clip: input(clipLength, this.tokens.clipTable), t5: input(t5Length, this.tokens.t5Table) };
  }

  /** The values of `inputs`: the rows as they are, or the embeddings that they mean. */
  async gather(
    tokens: Pick<Tokenized, "clip" | "t5">,
  ): Promise<{ clip: Uint32Array | Float32Array; t5: Uint32Array | Float32Array }> {
    const { clipTable, t5Table } = this.tokens;
    return {
      clip: clipTable ? await clipTable.gather(tokens.clip) : tokens.clip,
      t5: t5Table ? await t5Table.gather(tokens.t5) : tokens.t5,
    };
  }

  /** Bytes of the largest value of one prompt's way through the encoders. */
  get largestValue(): number {
    const { width, inner, heads, headSize } = this.t5.config;
    return 4 * this.layout.t5Length * Math.max(width, inner, heads * headSize);
  }

  /** Token rows of prompts. */
  tokenize(texts: readonly string[]): Tokenized {
    const { clipLength, t5Length } = this.layout;
    const clip = new Uint32Array(texts.length * clipLength);
    const ends = new Uint32Array(texts.length);
    const t5 = new Uint32Array(texts.length * t5Length);
    const unknown: string[] = [];
    const cut: string[] = [];
    texts.forEach((text, i) => {
      const missing = new Set<number>();
      const ids = this.tokens.clip.encodeFixed(text, clipLength, CLIP_PADDING.transformers);
      clip.set(this.tokens.clipRows.rows([...ids], missing), i * clipLength);
      // Pooling takes the first end token; the padding has the same id.
      ends[i] = ids.indexOf(CLIP_END);
      t5.set(this.tokens.t5Rows.rows([...this.tokens.t5.encodeFixed(text, t5Length)], missing), i * t5Length);
      if (missing.size > 0) unknown.push(text);
      if (this.tokens.t5.encode(text).length > t5Length) cut.push(text);
    });
    return { clip, ends, t5, unknown, cut };
  }

  /** Tokens as `inputs` says -> T5 states [B, L, J] and pooled CLIP vector [B, P]. T5 sees its padding, as in FLUX.1. */
  trace(
    graph: Graph,
    session: Session,
    tokens: { clip: Tensor; ends: Tensor; t5: Tensor },
  ): { states: Tensor; pooled: Tensor } {
    const length = this.layout.t5Length;
    const { pooled } = graph.scope("clip", () => this.clip.forward(graph, tokens.clip, tokens.ends));
    const buckets = session.constant(graph, `t5 buckets ${length}`, bucketTable(length), [length, length]);
    const states = graph.scope("t5", () => this.t5.forward(graph, tokens.t5, buckets));
    return { states, pooled };
  }
}

/** Matrices of a large encoder stay the halves that its file holds. */
function parameterOptions(
  file: Safetensors,
  { precision, halvesFromBytes = HALVES_FROM_BYTES }: TextEncoderOptions,
): { dtype: DType; storage?: Storage } {
  const matrices = file.names().flatMap((name) => {
    const info = file.info(name);
    return info.shape.length === 2 && !/embed_tokens|embedding|^shared\./.test(name) ? [info] : [];
  });
  const elements = matrices.reduce((n, { shape }) => n + shape[0]! * shape[1]!, 0);
  if (precision !== "f32" || 4 * elements <= halvesFromBytes) return { dtype: precision };
  const all = (dtype: string) => matrices.every((info) => info.dtype === dtype);
  return { dtype: precision, ...(all("BF16") ? { storage: "bf16" } : all("F16") ? { storage: "f16" } : {}) };
}

function checkWidth(layout: PipelineLayout, encoder: string, key: string, given: number, taken: number): void {
  if (given === taken) return;
  throw new LongtailError("E-FILE-032", {
    what: `${encoder} gives vectors of ${given} numbers, and the transformer takes ${taken} (${key})`,
    where: layout.folder,
    why: "the parts of the pipeline come from different models",
    fix: "use the text encoders that belong to the transformer",
  });
}
