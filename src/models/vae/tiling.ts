// Pictures whose values exceed a binding go through an autoencoder in overlapping tiles, as diffusers' enable_tiling does: one
// plan is replayed for every tile, and neighbours are blended linearly where they overlap. The blending runs on the host: no
// gradient passes here, a tile's picture is small beside the values behind it, and the order of the additions is fixed.

import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Plan, Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { Geometry } from "../pipeline.ts";
import { LATENT_STRIDE } from "./autoencoder.ts";
import { unpackLatents } from "./packing.ts";

/** Share of a tile's side that the next tile covers too, diffusers' tile_overlap_factor. */
const OVERLAP = 0.25;
/** Sides of tiles are multiples of this many tokens, so that a quarter of them is a whole number. */
const UNIT = 4;
/** Latents of a token's side. */
const TOKEN_LATENTS = 2;
const TOKEN_PIXELS = TOKEN_LATENTS * LATENT_STRIDE;

/** Where a tile lies in its picture, in tokens. */
interface Place {
  row: number;
  column: number;
}

/** The largest tile of at most `tokens` tokens, nearly square where the picture lets it be; never below 4 × 4. */
export function tileWithin(geometry: Geometry, tokens: number): Geometry {
  const side = (length: number, most: number) =>
    length >= most ? most : Math.min(most, Math.max(UNIT, UNIT * Math.floor(length / UNIT)));
  const rows = side(Math.sqrt(tokens), geometry.rows);
  const columns = side(tokens / rows, geometry.columns);
  return { rows: side(tokens / columns, geometry.rows), columns };
}

/** Where the tiles of one direction begin; the last one is shifted inwards, so that all have one size. */
export function tileStarts(length: number, tile: number): number[] {
  const stride = Math.floor(tile * (1 - OVERLAP));
  const starts = [0];
  for (let at = 0; at + tile < length; starts.push(at)) at = Math.min(at + stride, length - tile);
  return starts;
}

/**
 * Fades from one tile into the next along the middle of three dimensions, in place: value i of the n that both have becomes
 * before · (1 - i/n) + values · i/n.
 */
function blend(before: Float32Array, values: Float32Array, [outer, length, inner]: number[], n: number): void {
  for (let o = 0; o < outer!; o++) {
    for (let i = 0; i < n; i++) {
      const [at, from] = [(o * length! + i) * inner!, (o * length! + length! - n + i) * inner!];
      const weight = i / n;
      for (let k = 0; k < inner!; k++) values[at + k] = before[from + k]! * (1 - weight) + values[at + k]! * weight;
    }
  }
}

/**
 * Runs all tiles row by row and joins what they give. A tile is blended with the one above and then with the one to its left,
 * both as they are after their own blending; where four tiles meet, the result depends on that order, and it is diffusers'.
 * @param scale values of the result on a token's side
 * @param run gives [channels, tile.rows · scale, tile.columns · scale], which is overwritten
 * @returns [channels, geometry.rows · scale, geometry.columns · scale]
 */
export async function joinTiles(
  geometry: Geometry,
  tile: Geometry,
  channels: number,
  scale: number,
  run: (place: Place) => Promise<Float32Array>,
): Promise<Float32Array> {
  const [height, width] = [tile.rows * scale, tile.columns * scale];
  const all = { height: geometry.rows * scale, width: geometry.columns * scale };
  const out = new Float32Array(channels * all.height * all.width);
  const columns = tileStarts(geometry.columns, tile.columns);
  let above: { row: number; tiles: Float32Array[] } | null = null;
  for (const row of tileStarts(geometry.rows, tile.rows)) {
    const tiles: Float32Array[] = [];
    for (const [j, column] of columns.entries()) {
      const values = await run({ row, column });
      if (above) blend(above.tiles[j]!, values, [channels, height, width], (above.row + tile.rows - row) * scale);
      if (j > 0) {
        const shared = (columns[j - 1]! + tile.columns - column) * scale;
        blend(tiles[j - 1]!, values, [channels * height, width, 1], shared);
      }
      tiles.push(values);
      // What the next tiles share with this one they write again.
      for (let c = 0; c < channels; c++) {
        for (let y = 0; y < height; y++) {
          const from = (c * height + y) * width;
          const to = (c * all.height + row * scale + y) * all.width + column * scale;
          out.set(values.subarray(from, from + width), to);
        }
      }
    }
    above = { row, tiles };
  }
  return out;
}

/** Copies a window out of [planes, rows, columns], whose places hold `size` values each. */
function cut(values: Float32Array, planes: number, full: Geometry, size: number, part: Geometry, at: Place) {
  const length = part.columns * size;
  const out = new Float32Array(planes * part.rows * length);
  for (let line = 0; line < planes * part.rows; line++) {
    const [plane, y] = [Math.floor(line / part.rows), line % part.rows];
    const from = ((plane * full.rows + at.row + y) * full.columns + at.column) * size;
    out.set(values.subarray(from, from + length), line * length);
  }
  return out;
}

const times = ({ rows, columns }: Geometry, factor: number): Geometry => ({
  rows: rows * factor,
  columns: columns * factor,
});

/** Planes [C, 2 · rows, 2 · columns] -> packed [rows · columns · 4C]: packing.ts on the host. */
function pack(planes: Float32Array, { rows, columns }: Geometry): Float32Array {
  const [height, width] = [rows * TOKEN_LATENTS, columns * TOKEN_LATENTS];
  const channels = planes.length / (height * width);
  const out = new Float32Array(planes.length);
  let at = 0;
  for (let row = 0; row < height; row += TOKEN_LATENTS)
    for (let column = 0; column < width; column += TOKEN_LATENTS)
      for (let c = 0; c < channels; c++)
        for (let y = row; y < row + TOKEN_LATENTS; y++)
          for (let x = column; x < column + TOKEN_LATENTS; x++) out[at++] = planes[(c * height + y) * width + x]!;
  return out;
}

export interface TilingOptions {
  /** Names the plan and its variables. */
  title: string;
  /** The whole picture and one tile of it, in tokens. */
  geometry: Geometry;
  tile: Geometry;
  /** Channels of a packed token. */
  channels: number;
}

abstract class Tiled {
  /** Runs one tile. */
  readonly plan: Plan;
  protected readonly options: TilingOptions;
  private readonly session: Session;
  private readonly input: Variable;
  private readonly output: Variable;

  /** Traces the plan; the session must not be open. */
  constructor(
    session: Session,
    options: TilingOptions,
    [input, output]: [number[], number[]],
    trace: (graph: Graph, input: Tensor) => Tensor,
  ) {
    this.session = session;
    this.options = options;
    this.input = session.data(`${options.title}.tile`, input);
    this.output = session.data(`${options.title}.tile result`, output);
    this.plan = session.plan(options.title, (graph) => graph.assign(this.output, trace(graph, graph.read(this.input))));
  }

  /** How often a picture takes the plan. */
  get count(): number {
    const { geometry, tile } = this.options;
    return tileStarts(geometry.rows, tile.rows).length * tileStarts(geometry.columns, tile.columns).length;
  }

  protected async run(values: Float32Array): Promise<Float32Array> {
    this.session.write(this.input, values);
    await this.session.replay(this.plan);
    return this.session.read(this.output);
  }
}

export class TiledDecoder extends Tiled {
  /** `trace` decodes the packed latents of a tile [1, L, C] to its picture [1, 3, H, W]. */
  constructor(session: Session, options: TilingOptions, trace: (graph: Graph, packed: Tensor) => Tensor) {
    const { tile, channels } = options;
    const { rows, columns } = times(tile, TOKEN_PIXELS);
    super(
      session,
      options,
      [
        [1, tile.rows * tile.columns, channels],
        [1, 3, rows, columns],
      ],
      trace,
    );
  }

  /** Packed model latents [L · C] of one picture -> [3 · H · W], not clamped. */
  decode(packed: Float32Array): Promise<Float32Array> {
    const { geometry, tile, channels } = this.options;
    return joinTiles(geometry, tile, 3, TOKEN_PIXELS, (place) =>
      this.run(cut(packed, 1, geometry, channels, tile, place)),
    );
  }
}

export class TiledEncoder extends Tiled {
  /** `trace` encodes the picture of a tile [1, 3, H, W] to packed latents [1, L, C]. */
  constructor(session: Session, options: TilingOptions, trace: (graph: Graph, picture: Tensor) => Tensor) {
    const { tile, channels } = options;
    const [pixels, latents] = [times(tile, TOKEN_PIXELS), times(tile, TOKEN_LATENTS)];
    const shapes: [number[], number[]] = [
      [1, 3, pixels.rows, pixels.columns],
      [1, channels / TOKEN_LATENTS ** 2, latents.rows, latents.columns],
    ];
    super(session, options, shapes, (graph, picture) => unpackLatents(trace(graph, picture), tile.rows, tile.columns));
  }

  /** One picture [3 · H · W] in [0, 1] -> packed model latents [L · C]. */
  async encode(picture: Float32Array): Promise<Float32Array> {
    const { geometry, tile, channels } = this.options;
    const [full, part] = [times(geometry, TOKEN_PIXELS), times(tile, TOKEN_PIXELS)];
    const run = ({ row, column }: Place) =>
      this.run(cut(picture, 3, full, 1, part, { row: row * TOKEN_PIXELS, column: column * TOKEN_PIXELS }));
    return pack(await joinTiles(geometry, tile, channels / TOKEN_LATENTS ** 2, TOKEN_LATENTS, run), geometry);
  }
}
