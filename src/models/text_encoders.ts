// FLUX.1's two text encoders with their tokenizers: CLIP's pooled vector says what the whole picture is, T5's states are
// what the picture's tokens attend to. Tables may be compact, and large ones stay in their files (see token_rows.ts).

import type { FileStore } from "../base/files.ts";
import { CLIP_END, CLIP_PADDING, ClipTokenizer } from "../data/tokenizers/clip.ts";
import { T5Tokenizer } from "../data/tokenizers/t5.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { Parameters } from "../nn/parameters.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import { ClipTextModel } from "./clip/text.ts";
import { safetensorsSource } from "./mapped_source.ts";
import type { ClipT5Parts, PipelineLayout } from "./pipeline_layout.ts";
import { bucketTable, T5Encoder, t5Config } from "./t5/encoder.ts";
import {
  checkWidth,
  storageOfEncoder,
  type TextEncoderOptions,
  type TextEncoding,
  type TokenInput,
  type Tokenized,
  type TokenValues,
  tableInFile,
  tokenInput,
} from "./text_encoding.ts";
import { type FileRows, TokenRows } from "./token_rows.ts";
import type { WeightsPart } from "./weights_file.ts";

interface Tokens {
  clip: ClipTokenizer;
  t5: T5Tokenizer;
  clipRows: TokenRows;
  t5Rows: TokenRows;
  /** Tables that are not on the device. */
  clipTable: FileRows | null;
  t5Table: FileRows | null;
}

/** Inputs: `clip` rows [n, clipLength], `ends` positions of the end tokens [n], `t5` rows [n, textLength]. */
export class ClipT5Encoding implements TextEncoding {
  readonly parts: readonly WeightsPart[];
  private readonly lengths: { clip: number; t5: number };
  private readonly clip: ClipTextModel;
  private readonly t5: T5Encoder;
  private readonly tokens: Tokens;

  private constructor(
    lengths: { clip: number; t5: number },
    models: { clip: ClipTextModel; t5: T5Encoder },
    tokens: Tokens,
    parts: readonly WeightsPart[],
  ) {
    this.lengths = lengths;
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
    { folder, textLength }: Pick<PipelineLayout, "folder" | "textLength">,
    text: ClipT5Parts,
    options: TextEncoderOptions,
  ): Promise<ClipT5Encoding> {
    const pool = session.pool("text encoders", "weights");
    const clipFile = await Safetensors.open(files, text.clip.weights);
    // transformers 5 saves a lone text model without the prefix that a whole CLIP model has.
    const bare = (name: string) => (clipFile.has(name) ? name : name.replace(/^text_model\./, ""));
    const clipName = bare("text_model.embeddings.token_embedding.weight");
    const clipRows = await TokenRows.of(clipFile, clipName.slice(0, -7));
    const number = (key: string, fallback: number) => (text.clip.config[key] as number | undefined) ?? fallback;
    const width = number("hidden_size", 768);
    const clipTable = tableInFile(files, clipFile, clipName, [clipRows.count, width], options);
    const clipParameters = new Parameters(pool, storageOfEncoder(clipFile, options));
    const clip = new ClipTextModel(
      clipParameters,
      {
        rows: clipRows.count,
        positions: number("max_position_embeddings", text.clipLength),
        width,
        heads: number("num_attention_heads", 12),
        layers: number("num_hidden_layers", 12),
        inner: number("intermediate_size", 3072),
        activation: (text.clip.config["hidden_act"] as string | undefined) ?? "quick_gelu",
      },
      clipTable !== null,
    );
    const t5File = await Safetensors.open(files, text.t5.weights);
    // The table is tied and public checkpoints hold it under either name.
    const shared = (name: string) =>
      name === "shared.weight" && !t5File.has(name) ? "encoder.embed_tokens.weight" : name;
    const t5Name = shared("shared.weight");
    const t5Rows = await TokenRows.of(t5File, t5Name.slice(0, -7));
    const t5Parameters = new Parameters(pool, storageOfEncoder(t5File, options));
    const config = t5Config(text.t5.config, t5Rows.count);
    const t5Table = tableInFile(files, t5File, t5Name, [t5Rows.count, config.width], options);
    const t5 = new T5Encoder(t5Parameters, config, t5Table !== null);
    const tokens = {
      clip: await ClipTokenizer.load(files, `${options.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5: await T5Tokenizer.load(files, `${options.tokenizers}/t5/tokenizer.json`),
      clipRows,
      t5Rows,
      clipTable,
      t5Table,
    };
    checkWidth(folder, "text_encoder", "pooled_projection_dim", width, options.transformer.pooledWidth);
    checkWidth(folder, "text_encoder_2", "joint_attention_dim", config.width, options.transformer.jointWidth);
    return new ClipT5Encoding({ clip: text.clipLength, t5: textLength }, { clip, t5 }, tokens, [
      { parameters: clipParameters, source: safetensorsSource(clipFile), rename: bare },
      { parameters: t5Parameters, source: safetensorsSource(t5File), rename: shared },
    ]);
  }

  inputs(batch: number): Record<"clip" | "ends" | "t5", TokenInput> {
    return {
      clip: tokenInput(batch, this.lengths.clip, this.tokens.clipTable),
      ends: { shape: [batch], dtype: "u32" },
      t5: tokenInput(batch, this.lengths.t5, this.tokens.t5Table),
    };
  }

  async gather(tokens: TokenValues): Promise<TokenValues> {
    const { clipTable, t5Table } = this.tokens;
    return {
      ...tokens,
      ...(clipTable ? { clip: await clipTable.gather(tokens["clip"]!) } : {}),
      ...(t5Table ? { t5: await t5Table.gather(tokens["t5"]!) } : {}),
    };
  }

  get largestValue(): number {
    const { width, inner, heads, headSize } = this.t5.config;
    return 4 * this.lengths.t5 * Math.max(width, inner, heads * headSize);
  }

  /** `cut` are texts that are too long for T5; CLIP's 77 tokens cut every longer prompt, which is usual. */
  tokenize(texts: readonly string[]): Tokenized {
    const { clip: clipLength, t5: t5Length } = this.lengths;
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
    return { tokens: { clip, ends, t5 }, unknown, cut };
  }

  /** T5 sees its padding, as in FLUX.1. */
  trace(graph: Graph, session: Session, tokens: Readonly<Record<string, Tensor>>): { states: Tensor; pooled: Tensor } {
    const { t5: length } = this.lengths;
    const { pooled } = graph.scope("clip", () => this.clip.forward(graph, tokens["clip"]!, tokens["ends"]!));
    const buckets = session.constant(graph, `t5 buckets ${length}`, bucketTable(length), [length, length]);
    const states = graph.scope("t5", () => this.t5.forward(graph, tokens["t5"]!, buckets));
    return { states, pooled };
  }
}
