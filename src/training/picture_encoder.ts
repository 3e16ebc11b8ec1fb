// Pictures to packed latents, bucket by bucket: one plan for each size of picture, all in one session's arena. The latents
// are what a flow-matching trainer starts from and what the cache of encodings keeps. Sizes whose values exceed a binding are
// encoded in tiles.

import { type Geometry, geometryName, type Pipeline, TOKEN_PIXELS } from "../models/pipeline.ts";
import { TiledEncoder } from "../models/vae/tiling.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";

interface Bucket {
  plan: Plan;
  pictures: Variable;
  latents: Variable;
}

export class PictureEncoder {
  readonly batch: number;
  private readonly session: Session;
  private readonly buckets = new Map<string, Bucket>();
  /** Sizes whose values exceed a binding; their pictures are encoded one by one. */
  private readonly tiled = new Map<string, TiledEncoder>();

  /** Traces one plan a geometry; the pipeline must have been opened with its encoder, and the session must not be open. */
  constructor(session: Session, pipeline: Pipeline, geometries: readonly Geometry[], batch: number) {
    this.session = session;
    this.batch = batch;
    for (const geometry of geometries) {
      const name = geometryName(geometry);
      const tile = pipeline.tile("encoder", geometry, session.target.maxBindingBytes);
      if (tile) {
        const options = { title: `encode ${name}`, geometry, tile, channels: pipeline.channels };
        const coder = new TiledEncoder(session, options, (graph, picture) => pipeline.encode(graph, picture));
        this.tiled.set(name, coder);
        continue;
      }
      const { rows, columns } = geometry;
      const pictures = session.data(`encode.pictures ${name}`, [batch, 3, rows * TOKEN_PIXELS, columns * TOKEN_PIXELS]);
      const latents = session.data(`encode.latents ${name}`, [batch, rows * columns, pipeline.channels]);
      const plan = session.plan(`encode ${name}`, (graph) => {
        graph.assign(latents, pipeline.encode(graph, graph.read(pictures)));
      });
      this.buckets.set(name, { plan, pictures, latents });
    }
  }

  /**
   * Encodes at most `batch` pictures of one size.
   * @param pictures each [3, H, W] in [0, 1]
   * @returns packed latents [L · C] of each
   */
  async encode(pictures: readonly Float32Array[], geometry: Geometry): Promise<Float32Array[]> {
    const tiled = this.tiled.get(geometryName(geometry));
    if (tiled) {
      const latents = [];
      for (const picture of pictures) latents.push(await tiled.encode(picture));
      return latents;
    }
    const bucket = this.buckets.get(geometryName(geometry));
    if (!bucket) throw new Error(`no plan encodes pictures of ${geometryName(geometry)} tokens`);
    const size = bucket.pictures.size / this.batch;
    const all = new Float32Array(bucket.pictures.size);
    // A batch that is not full is filled with its first picture; what comes of the surplus is dropped.
    for (let i = 0; i < this.batch; i++) all.set(pictures[i] ?? pictures[0]!, i * size);
    this.session.write(bucket.pictures, all);
    await this.session.replay(bucket.plan);
    const latents = await this.session.read(bucket.latents);
    const each = latents.length / this.batch;
    return pictures.map((_, i) => latents.slice(i * each, (i + 1) * each));
  }
}
