// The device memory that blocks take turns in: for each kind of block a few slots, refilled from the source with the stored
// words of the next block while the device computes with the one before (the block swapping of kohya's sd-scripts). Words
// lie in mapped memory until the queue copies them in its own order, so a slot can never change under a kernel that still
// reads it. Reading, encoding and copying on the host overlap with computing; the device's copy does not.

import { checkParameters, type Declaration, type Parameters, placesOf, storageOf } from "../../../nn/parameters.ts";
import type { Session } from "../../../tensor/session.ts";
import type { BlockSource } from "./sources.ts";

/** One block of the model and the slot that it computes in. */
export interface Block {
  /** Module path: "transformer_blocks.3". */
  readonly name: string;
  readonly kind: "double" | "single";
  /** Number among the blocks of its kind. */
  readonly index: number;
  /** Name of its slot. */
  readonly slot: string;
  /** Its tensors by full name, as they lie in the slot. */
  readonly tensors: ReadonlyMap<string, Declaration>;
}

export interface RingTimes {
  /** Bytes of stored words that were uploaded. */
  bytes: number;
  /** Milliseconds in which the host read the source and copied, and in which it waited for a slot or room for a copy. */
  filling: number;
  waiting: number;
}

export class BlockRing {
  /** Sums since the ring was made, or since the caller set them back. */
  readonly times: RingTimes = { bytes: 0, filling: 0, waiting: 0 };
  private readonly session: Session;
  private readonly parameters: Parameters;
  private source: BlockSource | null = null;
  private readonly held = new Map<string, Block>();
  private readonly uses = new Map<string, () => Promise<void>>();

  constructor(session: Session, parameters: Parameters) {
    this.session = session;
    this.parameters = parameters;
  }

  /**
   * Chooses where blocks come from; what the slots held is forgotten.
   * @throws LongtailError E-FILE-030, E-FILE-031 where the source lacks a tensor or has another shape
   */
  open(source: BlockSource): void {
    checkParameters(this.parameters, source);
    this.source = source;
    this.held.clear();
  }

  /** Uploads tensors of any place. */
  async fill(tensors: ReadonlyMap<string, Declaration>): Promise<void> {
    if (!this.source) throw new Error("the streamed model has no weights yet: load comes first");
    const started = performance.now();
    const waited = this.session.stagingWaited;
    for (const [name, tensor] of tensors) {
      const stored = await this.source.read(name, storageOf(tensor));
      for (const { variable, data } of placesOf(tensor, stored)) await this.session.stage(variable, data);
      this.times.bytes += stored.codes.byteLength + (stored.scales?.byteLength ?? 0);
    }
    this.session.flushStaged();
    const waits = this.session.stagingWaited - waited;
    this.times.waiting += waits;
    this.times.filling += performance.now() - started - waits;
  }

  /** Makes the block's slot hold it; waits until the device is done with what the slot served before. */
  async bring(block: Block): Promise<void> {
    if (this.held.get(block.slot) === block) return;
    const started = performance.now();
    await this.uses.get(block.slot)?.();
    this.times.waiting += performance.now() - started;
    // Half a block is none, should the source fail.
    this.held.delete(block.slot);
    await this.fill(block.tensors);
    this.held.set(block.slot, block);
  }

  /** Notes that calls which read the block's slot were submitted. */
  used(block: Block): void {
    this.uses.set(block.slot, this.session.mark());
  }

  /** Brings blocks that come after `order[at]`, as long as their slots are not wanted by an earlier one. */
  async bringAhead(order: readonly Block[], at: number): Promise<void> {
    const wanted = new Set([order[at]!.slot]);
    for (const block of order.slice(at + 1)) {
      if (wanted.has(block.slot)) return;
      wanted.add(block.slot);
      await this.bring(block);
    }
  }
}
