// FLUX.1's two text encoders with their tokenizers: CLIP's pooled vector says what the whole picture is, T5's states are
// what the picture's tokens attend to. Tables may be compact (see token_rows.ts).

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { CLIP_END, CLIP_PADDING, ClipTokenizer } from "../data/tokenizers/clip.ts";
import { T5Tokenizer } from "../data/tokenizers/t5.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { Parameters } from "../nn/parameters.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import type { DType } from "../tensor/shape.ts";
import { ClipTextModel } from "./clip/text.ts";
import type { FluxConfig } from "./flux/config.ts";
import type { PipelineLayout } from "./pipeline_layout.ts";
import { bucketTable, T5Encoder, t5Config } from "./t5/encoder.ts";
import { TokenRows } from "./token_rows.ts";
import type { WeightsPart } from "./weights_file.ts";

export interface Tokenized {
  /** Rows of the CLIP table [n, clipLength] and positions of the end tokens [n]. */
  clip: Uint32Array;
  ends: Uint32Array;
  /** Rows of the T5 table [n, textLength]. */
  t5: Uint32Array;
  /** Texts with words that the embedding tables do not hold. */
  unknown: string[];
}

interface Tokens {
  clip: ClipTokenizer;
  t5: T5Tokenizer;
  clipRows: TokenRows;
  t5Rows: TokenRows;
}

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
    options: { tokenizers: string; precision: DType; transformer: FluxConfig },
  ): Promise<TextEncoders> {
    const pool = session.pool("text encoders", "weights");
    const clipFile = await Safetensors.open(files, layout.clip.weights);
    // transformers 5 saves a lone text model without the prefix that a whole CLIP model has.
    const bare = (name: string) => (clipFile.has(name) ? name : name.replace(/^text_model\./, ""));
    const clipRows = await TokenRows.of(clipFile, bare("text_model.embeddings.token_embedding.weight").slice(0, -7));
    const number = (key: string) => layout.clip.config[key] as number;
    const clipParameters = new Parameters(pool, { dtype: options.precision });
    const clip = new ClipTextModel(clipParameters, {
      rows: clipRows.count,
      positions: number("max_position_embeddings"),
      width: number("hidden_size"),
      heads: number("num_attention_heads"),
      layers: number("num_hidden_layers"),
      inner: number("intermediate_size"),
      activation: (layout.clip.config["hidden_act"] as string | undefined) ?? "quick_gelu",
    });
    const t5File = await Safetensors.open(files, layout.t5.weights);
    const t5Rows = await TokenRows.of(t5File, "shared");
    const t5Parameters = new Parameters(pool, { dtype: options.precision });
    const config = t5Config(layout.t5.config, t5Rows.count);
    const t5 = new T5Encoder(t5Parameters, config);
    const tokens = {
      clip: await ClipTokenizer.load(files, `${options.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5: await T5Tokenizer.load(files, `${options.tokenizers}/t5/tokenizer.json`),
      clipRows,
      t5Rows,
    };
    checkWidth(layout, "text_encoder", "pooled_projection_dim", number("hidden_size"), options.transformer.pooledWidth);
    checkWidth(layout, "text_encoder_2", "joint_attention_dim", config.width, options.transformer.jointWidth);
    return new TextEncoders(layout, { clip, t5 }, tokens, [
      { parameters: clipParameters, file: clipFile, rename: bare },
      { parameters: t5Parameters, file: t5File },
    ]);
  }

  /** Token rows of prompts. */
  tokenize(texts: readonly string[]): Tokenized {
    const { clipLength, t5Length } = this.layout;
    const clip = new Uint32Array(texts.length * clipLength);
    const ends = new Uint32Array(texts.length);
    const t5 = new Uint32Array(texts.length * t5Length);
    const unknown: string[] = [];
    texts.forEach((text, i) => {
      const missing = new Set<number>();
      const ids = this.tokens.clip.encodeFixed(text, clipLength, CLIP_PADDING.transformers);
      clip.set(this.tokens.clipRows.rows([...ids], missing), i * clipLength);
      // Pooling takes the first end token; the padding has the same id.
      ends[i] = ids.indexOf(CLIP_END);
      t5.set(this.tokens.t5Rows.rows([...this.tokens.t5.encodeFixed(text, t5Length)], missing), i * t5Length);
      if (missing.size > 0) unknown.push(text);
    });
    return { clip, ends, t5, unknown };
  }

  /** Token rows -> T5 states [B, L, J] and pooled CLIP vector [B, P]. */
  trace(
    graph: Graph,
    session: Session,
    rows: { clip: Tensor; ends: Tensor; t5: Tensor },
  ): { states: Tensor; pooled: Tensor } {
    const length = this.layout.t5Length;
    const { pooled } = graph.scope("clip", () => this.clip.forward(graph, rows.clip, rows.ends));
    const buckets = session.constant(graph, `t5 buckets ${length}`, bucketTable(length), [length, length]);
    const states = graph.scope("t5", () => this.t5.forward(graph, rows.t5, buckets));
    return { states, pooled };
  }
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
