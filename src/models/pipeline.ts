// A text-to-image pipeline of FLUX.1's or FLUX.2's family: transformer, text encoders, autoencoder, or those of them that a
// phase of a run needs. It declares their weights in the session's pools, loads them, and offers the traced pieces that sampling and
// training are put together from.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { Storage } from "../base/quantize.ts";
import { checkParameters, loadParameters, Parameters } from "../nn/parameters.ts";
import type { Decoded } from "../ops/quantized.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import type { DType } from "../tensor/shape.ts";
import type { Pool } from "../tensor/variable.ts";
import { type FamilyConfig, type FamilyModel, familyModel, openAutoencoder, openTextEncoding } from "./family.ts";
import { ropeTables } from "./flux/embeddings.ts";
import { CachedBlocks, fileBlocks } from "./flux/streamed/sources.ts";
import { type Slots, StreamedFlux } from "./flux/streamed/streamed.ts";
import { openPart, type PipelineLayout, readLayout } from "./pipeline_layout.ts";
import type { TextEncoding, TokenInput, Tokenized, TokenValues } from "./text_encoding.ts";
import { LATENT_STRIDE, type PictureCoder } from "./vae/autoencoder.ts";
import { tileWithin } from "./vae/tiling.ts";
import type { VelocityModel, VelocityNetwork } from "./velocity_network.ts";
import type { WeightsPart } from "./weights_file.ts";

export type { TokenInput, Tokenized } from "./text_encoding.ts";

/** Which parts are declared and loaded. */
export interface PipelineParts {
  transformer: boolean;
  text: boolean;
  encoder: boolean;
  decoder: boolean;
}

export interface PipelineOptions {
  folder: string;
  /** Folder or file of the autoencoder; "auto" takes the pipeline's own. */
  vae: string;
  /** File or folder whose transformer takes the place of the pipeline's own; "auto" keeps that. */
  transformer?: string;
  tokenizers: string;
  /** Side of the pictures in pixels; 0 takes the pipeline's own. */
  imageSize: number;
  /** Everything but the autoencoder's encoder where absent. */
  parts?: Partial<PipelineParts>;
  /** Element type of frozen matrices; the transformer's stay f32 where they are trained. */
  precision?: DType;
  transformerPrecision?: DType;
  /** How the transformer's Linear matrices are kept; all but f32 are frozen. By default as `transformerPrecision` says. */
  transformerStorage?: Storage;
  /** What products read of stored matrices; f16 needs shader-f16. */
  decoded?: Decoded;
  /** Largest embedding table of a text encoder that goes to the device whole; rows of larger ones are read from the file. */
  deviceTableBytes?: number;
  /** From how many bytes of f32 on a text encoder's matrices stay the halves of their file. */
  halvesFromBytes?: number;
  /** Streams the transformer's blocks from host memory; they are frozen then. By default it is on the device as a whole. */
  stream?: StreamOptions | null;
}

export interface StreamOptions {
  /** Blocks on the device at a time. */
  slots: Slots;
  /** Host memory for stored words that are read again and again; what does not fit is read from the file each time. */
  hostCacheBytes: number;
}

/** Pixels of a packed token's side. */
export const TOKEN_PIXELS = 2 * LATENT_STRIDE;

/** Size of a picture in packed tokens of TOKEN_PIXELS × TOKEN_PIXELS pixels. */
export interface Geometry {
  rows: number;
  columns: number;
}

/** "rows x columns", as names of variables and plans have it. */
export const geometryName = ({ rows, columns }: Geometry): string => `${rows}x${columns}`;

/** @throws LongtailError E-CFG-041 where the pixels are no whole number of tokens */
export function geometryOf(width: number, height: number, where: string): Geometry {
  const [rows, columns] = [height / TOKEN_PIXELS, width / TOKEN_PIXELS];
  if (Number.isInteger(rows) && Number.isInteger(columns) && rows > 0 && columns > 0) return { rows, columns };
  throw new LongtailError("E-CFG-041", {
    what: `pictures of ${width === height ? width : `${width} × ${height}`} pixels cannot be cut into latent patches`,
    where,
    fix: `use a multiple of ${TOKEN_PIXELS}`,
  });
}

/** A packed token is 2 × 2 latents; variants that read more beside them (masks, control pictures) are not trained here. */
function checkChannels(
  { transformer }: PipelineLayout,
  { inChannels, outChannels }: FamilyConfig,
  latent: number,
): void {
  if (inChannels === 4 * latent && outChannels === inChannels) return;
  throw new LongtailError("E-FILE-039", {
    what: `the transformer reads tokens of ${inChannels} channels and gives ${outChannels}, and the autoencoder's latents make ${4 * latent}`,
    where: transformer.configPath,
    why: "it is a variant that reads more than the noisy picture (Fill, Control), or the autoencoder is another model's",
    fix: "use a text-to-image transformer, and the autoencoder that belongs to it",
  });
}

function notStreamed({ transformer }: PipelineLayout): LongtailError {
  return new LongtailError("E-CFG-048", {
    what: `the blocks of a ${transformer.config["_class_name"]} cannot be streamed`,
    where: "device.offload",
    why: "only FLUX.1's transformer can run block by block",
    fix: 'use device.offload = "none", and less memory otherwise: model.storage = "nf4", train.checkpointing = true',
  });
}

const fitting = (most: number, bytes: number, room: number) => Math.max(1, Math.min(most, Math.floor(room / bytes)));

export class Pipeline {
  readonly layout: PipelineLayout;
  readonly config: FamilyConfig;
  /** Side of the square pictures that are meant where no geometry is named, in pixels, and the same in tokens. */
  readonly imageSize: number;
  readonly geometry: Geometry;
  private readonly model: FamilyModel;
  private readonly built: {
    transformer: VelocityNetwork | StreamedFlux | null;
    transformerPool: Pool;
    text: TextEncoding | null;
    autoencoder: PictureCoder;
  };
  private readonly parts: readonly WeightsPart[];
  /** Those whose files are open. */
  private readonly opened: Set<WeightsPart>;
  private readonly hostCacheBytes: number;

  private constructor(
    layout: PipelineLayout,
    model: FamilyModel,
    imageSize: number,
    built: Pipeline["built"],
    parts: readonly WeightsPart[],
    hostCacheBytes: number,
  ) {
    this.layout = layout;
    this.config = model.config;
    this.model = model;
    this.imageSize = imageSize;
    this.geometry = geometryOf(imageSize, imageSize, "model.image_size");
    this.built = built;
    this.parts = parts;
    this.opened = new Set(parts);
    this.hostCacheBytes = hostCacheBytes;
  }

  /** Reads configurations and headers, and declares the weights of the wanted parts in `session`. */
  static async open(files: FileStore, session: Session, options: PipelineOptions): Promise<Pipeline> {
    const { precision = "f32" } = options;
    const wanted = { transformer: true, text: true, encoder: false, decoder: true, ...options.parts };
    const layout = await readLayout(files, options.folder, options.vae, options.transformer);
    const imageSize = options.imageSize || layout.imageSize;
    // Before any file is opened.
    geometryOf(imageSize, imageSize, "model.image_size");
    const model = familyModel(layout);
    if (options.stream && !model.stream) throw notStreamed(layout);
    const parts: WeightsPart[] = [];
    // A part is checked before the next one is opened: whether parts fit together is asked of sound ones alone.
    const add = (...added: readonly WeightsPart[]) => {
      for (const { parameters, source, rename } of added) checkParameters(parameters, source, rename);
      parts.push(...added);
    };
    const transformerPool = session.pool("transformer", "weights");
    let transformer: VelocityNetwork | StreamedFlux | null = null;
    if (wanted.transformer) {
      const { transformerPrecision: dtype = "f32", transformerStorage: storage, stream } = options;
      // A CPU adapter reads halves one lane at a time; there f32 is the faster form to decode to.
      const { f16, software } = session.target;
      const decoded = options.decoded ?? (dtype === "f16" && f16 && !software ? "f16" : undefined);
      const kept = { dtype, storage, decoded };
      transformer =
        stream && model.stream
          ? model.stream(session, { ...kept, pool: transformerPool, slots: stream.slots })
          : model.build(new Parameters(transformerPool, kept));
      const source = await openPart(files, "transformer", layout.transformer);
      add({ parameters: transformer.parameters, source });
    }
    let text: TextEncoding | null = null;
    if (wanted.text) {
      const { tokenizers, deviceTableBytes, halvesFromBytes } = options;
      text = await openTextEncoding(files, session, layout, {
        tokenizers,
        precision,
        transformer: model.config,
        deviceTableBytes,
        halvesFromBytes,
      });
      add(...text.parts);
    }
    const vae = new Parameters(session.pool("autoencoder", "weights"), { dtype: precision });
    const autoencoder = openAutoencoder(vae, layout.autoencoder, wanted);
    checkChannels(layout, model.config, autoencoder.latentChannels);
    if (wanted.encoder || wanted.decoder)
      add({ parameters: vae, source: await openPart(files, "autoencoder", layout.autoencoder) });
    const built = { transformer, transformerPool, text, autoencoder };
    return new Pipeline(layout, model, imageSize, built, parts, options.stream?.hostCacheBytes ?? 0);
  }

  get transformer(): VelocityModel {
    if (!this.built.transformer) throw new Error("this pipeline was opened without its transformer");
    return this.built.transformer;
  }

  /** The transformer where its blocks are streamed, else null. */
  get streamed(): StreamedFlux | null {
    const { transformer } = this.built;
    return transformer instanceof StreamedFlux ? transformer : null;
  }

  /** Whether the transformer's family can be streamed. */
  get canStream(): boolean {
    return this.model.stream !== null;
  }

  get transformerPool(): Pool {
    return this.built.transformerPool;
  }

  private get text(): TextEncoding {
    if (!this.built.text) throw new Error("this pipeline was opened without its text encoders");
    return this.built.text;
  }

  /** Channels of a packed token. */
  get channels(): number {
    return this.config.inChannels;
  }

  get textLength(): number {
    return this.layout.textLength;
  }

  /** Image tokens of one square picture. */
  get imageTokens(): number {
    return this.geometry.rows * this.geometry.columns;
  }

  /** Files that `loadWeights` reads. */
  get fileCount(): number {
    return this.parts.length;
  }

  /** Uploads all weights into the open session and closes the files, but for one that blocks are streamed from. */
  async loadWeights(session: Session, onPart?: (done: number, total: number) => void): Promise<void> {
    const { streamed } = this;
    for (const [i, part] of this.parts.entries()) {
      if (part.parameters === streamed?.parameters) {
        const turns = (name: string) => streamed.takesTurns(name);
        await streamed.load(new CachedBlocks(fileBlocks(part.source, part.rename), this.hostCacheBytes, turns));
      } else {
        await loadParameters(session, part.parameters, part.source, part.rename);
        await part.source.close();
        this.opened.delete(part);
      }
      onPart?.(i + 1, this.parts.length);
    }
  }

  /** Closes what is open: all files before `loadWeights`, after it the one that blocks are streamed from. */
  async close(): Promise<void> {
    for (const { source } of this.opened) await source.close();
    this.opened.clear();
  }

  /** Token rows of prompts. */
  tokenize(texts: readonly string[]): Tokenized {
    return this.text.tokenize(texts);
  }

  /** What `traceText` reads of a batch of prompts. */
  textInputs(batch: number): Readonly<Record<string, TokenInput>> {
    return this.text.inputs(batch);
  }

  /** The values of `textInputs`: token rows, or the embeddings of an encoder whose table stays in its file. */
  gatherText(tokens: TokenValues): Promise<TokenValues> {
    return this.text.gather(tokens);
  }

  /** How many of `most` prompts go through the encoders at once so that no value exceeds a quarter of a binding. */
  textBatch(most: number, maxBindingBytes: number): number {
    return fitting(most, this.text.largestValue, maxBindingBytes / 4);
  }

  /** How many of `most` pictures are drawn at once so that no value of transformer and decoder exceeds half of a binding. */
  drawingBatch(most: number, geometry: Geometry, maxBindingBytes: number): number {
    const tokens = this.textLength + geometry.rows * geometry.columns;
    const fits = fitting(most, 4 * tokens * this.model.widest, maxBindingBytes / 2);
    return Math.min(fits, this.pictureBatch(most, [geometry], "decoder", maxBindingBytes));
  }

  /** How many of `most` pictures go through the autoencoder at once so that no value exceeds half of a binding. */
  pictureBatch(
    most: number,
    geometries: readonly Geometry[],
    half: "encoder" | "decoder",
    maxBindingBytes: number,
  ): number {
    const tokens = Math.max(...geometries.map(({ rows, columns }) => rows * columns));
    return fitting(most, tokens * this.tokenBytes(half), maxBindingBytes / 2);
  }

  /** Bytes of a half's largest value for each token of a picture. */
  private tokenBytes(half: "encoder" | "decoder"): number {
    return 4 * TOKEN_PIXELS ** 2 * this.built.autoencoder.widest(half);
  }

  /**
   * The tiles in which a picture goes through the autoencoder where the values of a whole one exceed a binding, and null
   * where they fit. The larger a tile, the closer the result to that of the whole picture.
   */
  tile(half: "encoder" | "decoder", geometry: Geometry, maxBindingBytes: number): Geometry | null {
    const tokens = Math.floor(maxBindingBytes / this.tokenBytes(half));
    return geometry.rows * geometry.columns <= tokens ? null : tileWithin(geometry, tokens);
  }

  /** Text encoders on `textInputs`: states [B, L, J], and the pooled text [B, P] in families that have one. */
  traceText(
    graph: Graph,
    session: Session,
    tokens: Readonly<Record<string, Tensor>>,
  ): { states: Tensor; pooled: Tensor | null } {
    return this.text.trace(graph, session, tokens);
  }

  /** Rotary tables of a geometry as leaves of `graph`; each geometry has constants of its own. */
  rotary(graph: Graph, session: Session, geometry: Geometry = this.geometry): { cosine: Tensor; sine: Tensor } {
    const ids = this.model.positionIds(this.textLength, geometry.rows, geometry.columns);
    const { cosine, sine } = ropeTables(ids, this.config.ropeAxes, this.config.ropeTheta);
    const shape = [ids.length, this.config.headSize / 2];
    const name = geometryName(geometry);
    return {
      cosine: session.constant(graph, `rotary cosine ${name}`, cosine, shape),
      sine: session.constant(graph, `rotary sine ${name}`, sine, shape),
    };
  }

  /** Packed model latents [B, rows · columns, C] -> pictures [B, 3, 16 · rows, 16 · columns] in [0, 1], not clamped. */
  decode(graph: Graph, packed: Tensor, geometry: Geometry = this.geometry): Tensor {
    return this.built.autoencoder.decode(graph, packed, geometry.rows, geometry.columns);
  }

  /** Pictures [B, 3, 16 · rows, 16 · columns] in [0, 1] -> packed model latents; the shape says the geometry. */
  encode(graph: Graph, pictures: Tensor): Tensor {
    return this.built.autoencoder.encode(graph, pictures);
  }
}
