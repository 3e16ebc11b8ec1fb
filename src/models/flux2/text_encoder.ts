// FLUX.2 klein's text encoder with its tokenizer: a prompt in its chat goes through Qwen3, and the states after three of its
// layers stand side by side for each token. As in diffusers' Flux2KleinPipeline the chat is filled up to a fixed length behind
// its end, padding is hidden from the encoder's attention, and its states are given to the transformer all the same.

import type { FileStore } from "../../base/files.ts";
import { QwenTokenizer } from "../../data/tokenizers/qwen.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { Parameters } from "../../nn/parameters.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Session } from "../../tensor/session.ts";
import { safetensorsSource } from "../mapped_source.ts";
import type { PipelineLayout, QwenParts } from "../pipeline_layout.ts";
import { qwen3Config } from "../qwen3/config.ts";
import { paddingScores, Qwen3Encoder, qwen3Name, qwen3Rotary } from "../qwen3/encoder.ts";
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
} from "../text_encoding.ts";
import { type FileRows, TokenRows } from "../token_rows.ts";
import type { WeightsPart } from "../weights_file.ts";

interface Tokens {
  tokenizer: QwenTokenizer;
  rows: TokenRows;
  /** The table where it is not on the device. */
  table: FileRows | null;
}

/** Inputs: `qwen` rows [n, length] and `mask`, what is added to the scores of tokens [n, length]. */
export class QwenEncoding implements TextEncoding {
  readonly parts: readonly WeightsPart[];
  private readonly length: number;
  private readonly model: Qwen3Encoder;
  private readonly tokens: Tokens;

  private constructor(length: number, model: Qwen3Encoder, tokens: Tokens, part: WeightsPart) {
    this.length = length;
    this.model = model;
    this.tokens = tokens;
    this.parts = [part];
  }

  /**
   * Reads headers and declares the weights in a pool of the session's.
   * @throws LongtailError E-FILE-032 where the states' width is not what the transformer takes, E-FILE-042 where the encoder
   * is another model or has fewer layers than are read
   */
  static async open(
    files: FileStore,
    session: Session,
    { folder, textLength }: Pick<PipelineLayout, "folder" | "textLength">,
    { encoder, tokenizer, layers }: QwenParts,
    options: TextEncoderOptions,
  ): Promise<QwenEncoding> {
    const file = await Safetensors.open(files, encoder.weights);
    const rename = qwen3Name((name) => file.has(name));
    const name = rename("model.embed_tokens.weight");
    const rows = await TokenRows.of(file, name.slice(0, -".weight".length));
    const config = qwen3Config(encoder.config, encoder.configPath, { rows: rows.count, layers });
    const table = tableInFile(files, file, name, [rows.count, config.width], options);
    const parameters = new Parameters(session.pool("text encoders", "weights"), storageOfEncoder(file, options));
    const model = new Qwen3Encoder(parameters, config, { layers, tableElsewhere: table !== null });
    const tokens = { tokenizer: await QwenTokenizer.load(files, tokenizer), rows, table };
    checkWidth(folder, "text_encoder", "joint_attention_dim", model.outputWidth, options.transformer.jointWidth);
    return new QwenEncoding(textLength, model, tokens, { parameters, source: safetensorsSource(file), rename });
  }

  inputs(batch: number): Record<"qwen" | "mask", TokenInput> {
    return {
      qwen: tokenInput(batch, this.length, this.tokens.table),
      mask: { shape: [batch, this.length], dtype: "f32" },
    };
  }

  async gather(tokens: TokenValues): Promise<TokenValues> {
    const { table } = this.tokens;
    return table ? { ...tokens, qwen: await table.gather(tokens["qwen"]!) } : tokens;
  }

  get largestValue(): number {
    const { width, inner, heads, headSize } = this.model.config;
    // A padded text has scores of its own for each head.
    const widest = Math.max(width, inner, heads * headSize, this.model.outputWidth, heads * this.length);
    return 4 * this.length * widest;
  }

  tokenize(texts: readonly string[]): Tokenized {
    const { length, tokens } = this;
    const qwen = new Uint32Array(texts.length * length);
    const unknown: string[] = [];
    const cut: string[] = [];
    const counts = texts.map((text, i) => {
      const { ids, count, whole } = tokens.tokenizer.encodePrompt(text, length);
      const missing = new Set<number>();
      qwen.set(tokens.rows.rows([...ids], missing), i * length);
      if (missing.size > 0) unknown.push(text);
      if (!whole) cut.push(text);
      return count;
    });
    return { tokens: { qwen, mask: paddingScores(counts, length) }, unknown, cut };
  }

  /** FLUX.2 takes no pooled text. */
  trace(graph: Graph, session: Session, tokens: Readonly<Record<string, Tensor>>): { states: Tensor; pooled: null } {
    const { length, model } = this;
    const { cosine, sine } = qwen3Rotary(length, model.config);
    const shape = [length, model.config.headSize / 2];
    const states = graph.scope("qwen3", () =>
      model.forward(graph, {
        tokens: tokens["qwen"]!,
        mask: tokens["mask"]!,
        cosine: session.constant(graph, `qwen3 cosine ${length}`, cosine, shape),
        sine: session.constant(graph, `qwen3 sine ${length}`, sine, shape),
      }),
    );
    return { states, pooled: null };
  }
}
