// Whether a run keeps the transformer on the device or streams its blocks from host memory, from [device]: told by the user, or
// chosen by tracing the run both ways and comparing with the memory that it may plan for.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { bytes } from "../evaluation/format.ts";
import { familyModel } from "../models/family.ts";
import type { Slots } from "../models/flux/streamed/streamed.ts";
import type { Pipeline, StreamOptions } from "../models/pipeline.ts";
import type { Session } from "../tensor/session.ts";
import type { Config } from "./config/schema.ts";
import { layoutOf } from "./model_files.ts";

/** A block that computes and one that is on its way. */
const LEAST_SLOTS: Slots = { double: 2, single: 2 };
/** Tuned kernels may want more workspace than the plain ones that slots are chosen with. */
const MARGIN = 0.02;
/** Share of the free host memory; a CPU adapter's own memory is part of that. */
const HOST_SHARE = { hardware: 1 / 2, software: 1 / 4 };

/** Bytes of host memory that a run may still take. */
export type AvailableMemory = () => Promise<number>;

export interface Offload {
  /** Null where the transformer is on the device as a whole. */
  stream: StreamOptions | null;
  /** What was chosen and why, for the terminal; null where there was nothing to choose. */
  text: string | null;
}

/** @throws LongtailError E-CFG-047 where blocks that are to be trained are to be streamed */
export function checkOffload({ adapter, device }: Config): void {
  if (device.offload !== "blocks" || adapter.kind !== "full") return;
  throw new LongtailError("E-CFG-047", {
    what: "full fine-tuning cannot stream the transformer's blocks",
    where: "device.offload",
    why: "their weights, gradients and moments change in every update; only frozen weights are brought from host memory",
    fix: 'train an adapter (adapter.kind = "lora" or "lokr"), or use device.offload = "none"',
  });
}

/** What a ladder of settings is told of streaming, as a word of a command line. */
export const STREAMING = "--device.offload=blocks";

/** `STREAMING` in a list where it can be added to a configuration. */
export async function streamingChange(files: FileStore, config: Config): Promise<string[]> {
  if (config.device.offload === "blocks" || !adapterStreams(config)) return [];
  return familyModel(await layoutOf(files, config)).stream ? [STREAMING] : [];
}

/** The least that a configuration with `STREAMING` keeps on the device; null for any other. */
export function leastStream({ device }: Config): StreamOptions | null {
  return device.offload === "blocks" ? { slots: LEAST_SLOTS, hostCacheBytes: 0 } : null;
}

async function hostCacheBytes({ device }: Config, software: boolean, available: AvailableMemory): Promise<number> {
  if (device.host_cache !== "auto") return device.host_cache * 2 ** 30;
  return Math.floor((await available()) * (software ? HOST_SHARE.software : HOST_SHARE.hardware));
}

/** Whether what [adapter] trains leaves the blocks' weights alone and needs no more than one of them at a time. */
export const adapterStreams = ({ adapter }: Config): boolean => adapter.kind === "lora" || adapter.kind === "lokr";

/**
 * Chooses for a run.
 * @param what `available` tells the free host memory; `canStream` is false where "auto" must not choose streaming, because what is trained or drawn with excludes it
 * @param build declares and traces the run; nothing is allocated
 */
export async function chooseOffload(
  config: Config,
  { canStream, available }: { canStream: boolean; available: AvailableMemory },
  build: (stream: StreamOptions | null) => Promise<{ session: Session; pipeline: Pipeline }>,
): Promise<Offload> {
  const { offload, memory_cap } = config.device;
  const cap = memory_cap * 2 ** 20;
  const whole: Offload = { stream: null, text: null };
  if (offload === "none") return whole;
  let most = Number.POSITIVE_INFINITY;
  let reason = 'as device.offload = "blocks" says';
  if (offload === "auto") {
    if (cap === 0 || !canStream) return whole;
    const { session, pipeline } = await build(null);
    most = session.memory().total;
    if (most <= cap || !pipeline.canStream) return whole;
    reason = `because with the whole of it the run takes ${bytes(most)}, above device.memory_cap = ${bytes(cap)}`;
  }
  const least = await build({ slots: LEAST_SLOTS, hostCacheBytes: 0 });
  const streamed = least.pipeline.streamed!;
  const { total } = least.session.memory();
  // Of a model of few blocks nothing is left to save.
  if (total >= most) return whole;
  const slots = cap === 0 ? streamed.slots : streamed.slotsWith(cap * (1 - MARGIN) - total);
  const hostBytes = await hostCacheBytes(config, least.session.target.software, available);
  const { doubleBlocks, singleBlocks } = streamed.config;
  const words = streamed.turningBytes(slots);
  return {
    stream: { slots, hostCacheBytes: hostBytes },
    text:
      `the transformer's blocks are streamed from host memory, ${reason}: ` +
      `${slots.double} + ${slots.single} of ${doubleBlocks} + ${singleBlocks} on the device at a time; host memory keeps ` +
      `${words <= hostBytes ? `all ${bytes(words)}` : `${bytes(hostBytes)} of the ${bytes(words)}`} that are brought again and again`,
  };
}
