// A FLUX.1 transformer whose blocks do not all fit the device: embedders, output and adapters stay there, the frozen weights
// of the blocks take turns in a ring of slots. It is the same model object as elsewhere, only that the tensors of blocks
// i, i + n, i + 2n ... name the same memory; it is run piece by piece (pass.ts) instead of as one plan.

import { type Storage, storedBytes } from "../../../base/quantize.ts";
import { type Declaration, Parameters, type SharedPlaces, storageOf } from "../../../nn/parameters.ts";
import type { Decoded } from "../../../ops/quantized.ts";
import type { Session } from "../../../tensor/session.ts";
import { type DType, elements } from "../../../tensor/shape.ts";
import { Pool } from "../../../tensor/variable.ts";
import type { PassShape, StreamedNetwork } from "../../velocity_network.ts";
import type { FluxConfig } from "../config.ts";
import { FluxTransformer } from "../transformer.ts";
import { StreamedPass } from "./pass.ts";
import { Places } from "./places.ts";
import { type Block, BlockRing } from "./ring.ts";
import type { BlockSource } from "./sources.ts";

export type BlockKind = Block["kind"];

/** Blocks of each kind that lie on the device at a time; no more than the model has are made. */
export type Slots = Readonly<Record<BlockKind, number>>;

export interface StreamedOptions {
  /** Where what stays on the device lies; a pool of its own by default. */
  pool?: Pool;
  /** As in `ParametersOptions`. */
  dtype?: DType;
  storage?: Storage;
  decoded?: Decoded;
  slots: Slots;
  /**
   * Mapped host memory through which words are uploaded. As much as a block lets the whole of it wait there while the
   * device computes, which is the default; a CPU adapter has nothing to overlap and takes less.
   */
  stagingBytes?: number;
}

const SOFTWARE_STAGING_BYTES = 64 << 20;

const PREFIXES: Readonly<Record<BlockKind, string>> = {
  double: "transformer_blocks",
  single: "single_transformer_blocks",
};
const BLOCK = /^((single_)?transformer_blocks)\.(\d+)\.(.*)$/;

/** Kind and number of the block that a tensor or module belongs to, and its name inside; null outside of blocks. */
function blockOf(name: string): { kind: BlockKind; index: number; inner: string } | null {
  const found = BLOCK.exec(name);
  return found ? { kind: found[2] ? "single" : "double", index: Number(found[3]), inner: found[4]! } : null;
}

export class StreamedFlux implements StreamedNetwork {
  readonly config: FluxConfig;
  /** Its `parameters.linears` are where adapters go. Its own `forward` must not be traced: blocks share their memory. */
  readonly transformer: FluxTransformer;
  /** Doubles, then singles. */
  readonly blocks: readonly Block[];
  readonly ring: BlockRing;
  readonly slots: Slots;
  /** The streams between blocks: passes of all sizes take turns in them. */
  readonly places: Places;
  private readonly session: Session;
  private readonly resident: ReadonlyMap<string, Declaration>;

  /** Declares the slots and what stays on the device; the session must not be open. */
  constructor(session: Session, config: FluxConfig, options: StreamedOptions) {
    const { dtype, storage, decoded, slots } = options;
    this.session = session;
    this.config = config;
    this.slots = {
      double: Math.max(1, Math.min(slots.double, config.doubleBlocks)),
      single: Math.max(1, Math.min(slots.single, config.singleBlocks)),
    };
    const slotName = (kind: BlockKind, index: number) => `${kind} slot ${index % this.slots[kind]}`;
    const pools = new Map<string, Pool>();
    const poolOf = (name: string): Pool => {
      const pool = pools.get(name) ?? session.pool(name, "weights");
      pools.set(name, pool);
      return pool;
    };
    const shared: SharedPlaces = {
      table: new Map(),
      of(name) {
        const block = blockOf(name);
        if (!block) return null;
        const slot = slotName(block.kind, block.index);
        return { pool: poolOf(slot), key: `${slot}: ${block.inner}` };
      },
    };
    const own = options.pool ?? session.pool("transformer", "weights");
    const parameters = new Parameters(own, { dtype, storage, decoded, shared });
    this.transformer = new FluxTransformer(parameters, config);
    const tensors = [...parameters.tensors];
    this.resident = new Map(tensors.filter(([name]) => !blockOf(name)));
    const blocksOf = (kind: BlockKind, count: number): Block[] =>
      Array.from({ length: count }, (_, index) => {
        const name = `${PREFIXES[kind]}.${index}`;
        const own = new Map(tensors.filter(([tensor]) => tensor.startsWith(`${name}.`)));
        return { name, kind, index, slot: slotName(kind, index), tensors: own };
      });
    this.blocks = [...blocksOf("double", config.doubleBlocks), ...blocksOf("single", config.singleBlocks)];
    this.ring = new BlockRing(session, parameters);
    this.places = new Places(session.pool("block inputs", "data"));
    const largest = [...pools.values()].reduce((most, pool) => Math.max(most, pool.bytes), 0);
    session.reserveStaging(
      options.stagingBytes ?? Math.min(largest, session.target.software ? SOFTWARE_STAGING_BYTES : largest),
    );
  }

  get parameters(): Parameters {
    return this.transformer.parameters;
  }

  /** Whether a tensor is uploaded again and again: it is part of a block that shares its slot. */
  takesTurns(name: string, slots = this.slots): boolean {
    const block = blockOf(name);
    if (!block) return false;
    const { config } = this;
    return slots[block.kind] < (block.kind === "double" ? config.doubleBlocks : config.singleBlocks);
  }

  /** Bytes of all that takes turns, as it is stored. */
  turningBytes(slots = this.slots): number {
    const turning = [...this.parameters.tensors].filter(([name]) => this.takesTurns(name, slots));
    return turning.reduce((sum, [, tensor]) => sum + storedBytes(storageOf(tensor), elements(tensor.shape)), 0);
  }

  /**
   * As many slots as fit where so many bytes more (or less, below zero) are there than this model's slots take; two of each
   * kind at least.
   */
  slotsWith(bytes: number): Slots {
    const { config, session, parameters, slots } = this;
    const limit = session.target.maxBindingBytes;
    const piece = pieceBytes(config, parameters.storage, limit);
    const taken = piece.resident + slots.double * piece.double + slots.single * piece.single;
    return chooseSlots(config, parameters.storage, limit, taken + bytes);
  }

  /**
   * Declares what one size needs and traces its plans; the largest first, so that the others find room in its places.
   * Adapters must hang on the layers, and their variables have gradients where they train, by now.
   * @throws LongtailError E-CFG-044 where a block has an adapter that cannot be streamed
   */
  pass(shape: PassShape): StreamedPass {
    return new StreamedPass(this.session, this, shape);
  }

  /**
   * Checks all names and shapes of the source, and loads what stays on the device; blocks follow as passes need them.
   * @throws LongtailError E-FILE-030, E-FILE-031, E-FILE-036, E-FILE-037
   */
  async load(source: BlockSource): Promise<void> {
    this.ring.open(source);
    await this.ring.fill(this.resident);
  }
}

/** Bytes that one block of each kind and everything outside of blocks take in a storage. */
export function pieceBytes(
  config: FluxConfig,
  storage: Storage,
  maxBindingBytes: number,
): Readonly<Record<BlockKind | "resident", number>> {
  const pool = (name: string) => new Pool(name, "weights", maxBindingBytes);
  const pools = { double: pool("double"), single: pool("single"), resident: pool("resident") };
  const shared: SharedPlaces = {
    table: new Map(),
    of(name) {
      const block = blockOf(name);
      return block && { pool: pools[block.kind], key: name };
    },
  };
  const one = { ...config, doubleBlocks: 1, singleBlocks: 1 };
  new FluxTransformer(new Parameters(pools.resident, { storage, shared }), one);
  return { double: pools.double.bytes, single: pools.single.bytes, resident: pools.resident.bytes };
}

/**
 * Slots for a memory: two of each kind at least, and what is left goes to single blocks, the cheaper ones, and then to
 * doubles. Every slot saves a block's upload where a backward pass turns around or the next pass begins.
 * @param bytes room for weights, without adapters, arena and states
 */
export function chooseSlots(config: FluxConfig, storage: Storage, maxBindingBytes: number, bytes: number): Slots {
  const piece = pieceBytes(config, storage, maxBindingBytes);
  const least = (most: number) => Math.min(2, most);
  let double = least(config.doubleBlocks);
  let single = least(config.singleBlocks);
  let left = bytes - piece.resident - double * piece.double - single * piece.single;
  const more = (room: number, size: number, most: number) => Math.max(0, Math.min(most, Math.floor(room / size)));
  const singles = more(left, piece.single, config.singleBlocks - single);
  single += singles;
  left -= singles * piece.single;
  double += more(left, piece.double, config.doubleBlocks - double);
  return { double, single };
}
