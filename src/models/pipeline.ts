// A text-to-image pipeline of the FLUX.1 family in diffusers' folder layout: transformer, CLIP and T5 text encoders,
// autoencoder, tokenizers. It declares all weights in the session's pools, loads them, and offers the traced pieces that
// sampling and training are put together from. pipeline.json says what the model files do not: sizes and latent scaling.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { CLIP_END, CLIP_PADDING, ClipTokenizer } from "../data/tokenizers/clip.ts";
import { T5Tokenizer } from "../data/tokenizers/t5.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { checkParameters, loadParameters, Parameters } from "../nn/parameters.ts";
import { affine } from "../ops/pointwise.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import type { DType } from "../tensor/shape.ts";
import type { Pool } from "../tensor/variable.ts";
import { ClipTextModel } from "./clip/text.ts";
import { type FluxConfig, fluxConfig } from "./flux/config.ts";
import { positionIds, ropeTables } from "./flux/embeddings.ts";
import { FluxTransformer } from "./flux/transformer.ts";
import { bucketTable, T5Encoder, t5Config } from "./t5/encoder.ts";
import { TokenRows } from "./token_rows.ts";
import { packLatents, unpackLatents } from "./vae/packing.ts";
import { TAEF2, TinyDecoder, TinyEncoder } from "./vae/tiny.ts";
import { readJson, tensorSource } from "./weights_file.ts";

export interface PipelineOptions {
  folder: string;
  /** File of the autoencoder's weights; "auto" takes the one that pipeline.json names. */
  vae: string;
  tokenizers: string;
  /** Side of the pictures in pixels; 0 takes the pipeline's own. */
  imageSize: number;
  /** Declare the autoencoder's encoder too (offline training). */
  encoder?: boolean;
  /** Element type of frozen matrices; the transformer's stay f32 where they are trained. */
  precision?: DType;
  transformerPrecision?: DType;
}

export interface Tokenized {
  /** Rows of the CLIP table [n, clipLength] and positions of the end tokens [n]. */
  clip: Uint32Array;
  ends: Uint32Array;
  /** Rows of the T5 table [n, textLength]. */
  t5: Uint32Array;
  /** Words of the texts that the embedded tables do not know. */
  unknown: string[];
}

interface PipelineJson {
  image_size: number;
  vae: { file: string; kind: string; scaling_factor: number; shift_factor: number };
  t5_length: number;
  clip_length: number;
}

/** Pixels of a latent's side; packing halves it once more. */
const LATENT_STRIDE = 8;

export class Pipeline {
  readonly config: FluxConfig;
  readonly imageSize: number;
  /** Tokens of a picture: rows, columns, and channels of a packed token. */
  readonly rows: number;
  readonly channels: number;
  readonly textLength: number;
  readonly clipLength: number;
  readonly transformer: FluxTransformer;
  readonly transformerPool: Pool;
  private readonly json: PipelineJson;
  private readonly clip: ClipTextModel;
  private readonly t5: T5Encoder;
  private readonly decoder: TinyDecoder;
  private readonly encoder: TinyEncoder | null;
  private readonly parts: { parameters: Parameters; file: Safetensors; rename?: (name: string) => string }[];
  private readonly tokens: { clip: ClipTokenizer; t5: T5Tokenizer; clipRows: TokenRows; t5Rows: TokenRows };

  private constructor(parts: {
    config: FluxConfig;
    json: PipelineJson;
    imageSize: number;
    transformer: FluxTransformer;
    transformerPool: Pool;
    clip: ClipTextModel;
    t5: T5Encoder;
    decoder: TinyDecoder;
    encoder: TinyEncoder | null;
    files: { parameters: Parameters; file: Safetensors; rename?: (name: string) => string }[];
    tokens: { clip: ClipTokenizer; t5: T5Tokenizer; clipRows: TokenRows; t5Rows: TokenRows };
  }) {
    this.config = parts.config;
    this.json = parts.json;
    this.imageSize = parts.imageSize;
    this.rows = parts.imageSize / LATENT_STRIDE / 2;
    this.channels = parts.config.inChannels;
    this.textLength = parts.json.t5_length;
    this.clipLength = parts.json.clip_length;
    this.transformer = parts.transformer;
    this.transformerPool = parts.transformerPool;
    this.clip = parts.clip;
    this.t5 = parts.t5;
    this.decoder = parts.decoder;
    this.encoder = parts.encoder;
    this.parts = parts.files;
    this.tokens = parts.tokens;
  }

  /** Image tokens of one picture. */
  get imageTokens(): number {
    return this.rows * this.rows;
  }

  /** Reads configurations and headers, and declares all weights in `session`. */
  static async open(files: FileStore, session: Session, options: PipelineOptions): Promise<Pipeline> {
    const { folder, precision = "f32" } = options;
    const json = (await readJson(files, `${folder}/pipeline.json`)) as unknown as PipelineJson;
    const imageSize = options.imageSize || json.image_size;
    if (imageSize % (2 * LATENT_STRIDE) !== 0) {
      throw new LongtailError("E-CFG-041", {
        what: `pictures of ${imageSize} pixels cannot be cut into latent patches`,
        where: "model.image_size",
        fix: `use a multiple of ${2 * LATENT_STRIDE}`,
      });
    }
    const configFile = `${folder}/transformer/config.json`;
    const config = fluxConfig(await readJson(files, configFile), configFile);
    const transformerFile = await Safetensors.open(files, `${folder}/transformer/diffusion_pytorch_model.safetensors`);
    const transformerPool = session.pool("transformer", "weights");
    const transformerParameters = new Parameters(transformerPool, { dtype: options.transformerPrecision ?? "f32" });
    const transformer = new FluxTransformer(transformerParameters, config);

    const textPool = session.pool("text encoders", "weights");
    const clipFile = await Safetensors.open(files, `${folder}/text_encoder/model.safetensors`);
    const clipJson = await readJson(files, `${folder}/text_encoder/config.json`);
    const clipRows = await TokenRows.of(clipFile, "text_model.embeddings.token_embedding");
    const number = (key: string) => clipJson[key] as number;
    const clipParameters = new Parameters(textPool, { dtype: precision });
    const clip = new ClipTextModel(clipParameters, {
      rows: clipRows.count,
      positions: number("max_position_embeddings"),
      width: number("hidden_size"),
      heads: number("num_attention_heads"),
      layers: number("num_hidden_layers"),
      inner: number("intermediate_size"),
      activation: (clipJson["hidden_act"] as string | undefined) ?? "quick_gelu",
    });
    const t5File = await Safetensors.open(files, `${folder}/text_encoder_2/model.safetensors`);
    const t5Rows = await TokenRows.of(t5File, "shared");
    const t5Parameters = new Parameters(textPool, { dtype: precision });
    const t5Json = t5Config(await readJson(files, `${folder}/text_encoder_2/config.json`), t5Rows.count);
    const t5 = new T5Encoder(t5Parameters, t5Json);

    const vaePath = options.vae === "auto" ? `${folder}/${json.vae.file}` : options.vae;
    const vaeFile = await Safetensors.open(files, vaePath);
    const vaePool = session.pool("autoencoder", "weights");
    const vaeParameters = new Parameters(vaePool, { dtype: precision });
    const decoder = new TinyDecoder(vaeParameters.at("decoder"), TAEF2);
    const encoder = options.encoder ? new TinyEncoder(vaeParameters.at("encoder"), TAEF2) : null;

    const tokens = {
      clip: await ClipTokenizer.load(files, `${options.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5: await T5Tokenizer.load(files, `${options.tokenizers}/t5/tokenizer.json`),
      clipRows,
      t5Rows,
    };
    // transformers 5 saves a lone text model without the prefix that a whole CLIP model has.
    const bare = (name: string) => (clipFile.has(name) ? name : name.replace(/^text_model\./, ""));
    const parts = [
      { parameters: transformerParameters, file: transformerFile },
      { parameters: clipParameters, file: clipFile, rename: bare },
      { parameters: t5Parameters, file: t5File },
      { parameters: vaeParameters, file: vaeFile },
    ];
    const widths = [
      ["text_encoder", "pooled_projection_dim", number("hidden_size"), config.pooledWidth],
      ["text_encoder_2", "joint_attention_dim", t5Json.width, config.jointWidth],
    ] as const;
    for (const part of parts) checkParameters(part.parameters, tensorSource(part.file), part.rename);
    for (const [encoder, key, given, taken] of widths) {
      if (given === taken) continue;
      throw new LongtailError("E-FILE-032", {
        what: `${encoder} gives vectors of ${given} numbers, and the transformer takes ${taken} (${key})`,
        where: folder,
        why: "the parts of the pipeline come from different models",
        fix: "use the text encoders that belong to the transformer",
      });
    }
    return new Pipeline({
      config,
      json,
      imageSize,
      transformer,
      transformerPool,
      clip,
      t5,
      decoder,
      encoder,
      files: parts,
      tokens,
    });
  }

  /** Uploads all weights into the open session and closes the files. */
  async loadWeights(session: Session, onPart?: (done: number, total: number) => void): Promise<void> {
    for (const [i, part] of this.parts.entries()) {
      await loadParameters(session, part.parameters, tensorSource(part.file), part.rename);
      await part.file.close();
      onPart?.(i + 1, this.parts.length);
    }
  }

  /** Token rows of prompts. */
  tokenize(texts: readonly string[]): Tokenized {
    const clip = new Uint32Array(texts.length * this.clipLength);
    const ends = new Uint32Array(texts.length);
    const t5 = new Uint32Array(texts.length * this.textLength);
    const unknown: string[] = [];
    texts.forEach((text, i) => {
      const missing = new Set<number>();
      const ids = this.tokens.clip.encodeFixed(text, this.clipLength, CLIP_PADDING.transformers);
      clip.set(this.tokens.clipRows.rows([...ids], missing), i * this.clipLength);
      // Pooling takes the first end token; the padding has the same id.
      ends[i] = ids.indexOf(CLIP_END);
      t5.set(
        this.tokens.t5Rows.rows([...this.tokens.t5.encodeFixed(text, this.textLength)], missing),
        i * this.textLength,
      );
      if (missing.size > 0) unknown.push(text);
    });
    return { clip, ends, t5, unknown };
  }

  /** Text encoders on token rows: T5 states [B, L, J] and pooled CLIP vector [B, P]. */
  traceText(
    graph: Graph,
    session: Session,
    rows: { clip: Tensor; ends: Tensor; t5: Tensor },
  ): { states: Tensor; pooled: Tensor } {
    const { pooled } = graph.scope("clip", () => this.clip.forward(graph, rows.clip, rows.ends));
    const buckets = session.constant(graph, `t5 buckets ${this.textLength}`, bucketTable(this.textLength), [
      this.textLength,
      this.textLength,
    ]);
    const states = graph.scope("t5", () => this.t5.forward(graph, rows.t5, buckets));
    return { states, pooled };
  }

  /** Rotary tables of this geometry as leaves of `graph`. */
  rotary(graph: Graph, session: Session): { cosine: Tensor; sine: Tensor } {
    const ids = positionIds(this.textLength, this.rows, this.rows);
    const { cosine, sine } = ropeTables(ids, this.config.ropeAxes, this.config.ropeTheta);
    const shape = [ids.length, this.config.headSize / 2];
    return {
      cosine: session.constant(graph, "rotary cosine", cosine, shape),
      sine: session.constant(graph, "rotary sine", sine, shape),
    };
  }

  /** Packed model latents [B, L, C] -> pictures [B, 3, S, S] in [0, 1], not clamped. */
  decode(graph: Graph, packed: Tensor): Tensor {
    const { scaling_factor, shift_factor } = this.json.vae;
    const latent = unpackLatents(affine(packed, 1 / scaling_factor, shift_factor), this.rows, this.rows);
    return this.decoder.forward(graph, latent);
  }

  /** Pictures in [0, 1] -> packed model latents. */
  encode(graph: Graph, pictures: Tensor): Tensor {
    if (!this.encoder) throw new Error("this pipeline was opened without its encoder");
    const { scaling_factor, shift_factor } = this.json.vae;
    return affine(packLatents(this.encoder.forward(graph, pictures)), scaling_factor, -scaling_factor * shift_factor);
  }
}
