// Where the time of plans goes, call by call, from timestamp queries. The profiler listens to a session and times the first
// few replays of every plan as they happen: nothing runs twice and no result changes, so a run can be profiled as it is.

import type { TimedReplay } from "./executable.ts";
import type { KernelCall } from "./lower.ts";
import type { Plan, Session } from "./session.ts";

/** A call of one timed replay. */
export interface CallSpan {
  call: KernelCall;
  /** Seconds since the replay's first call began, and of the call itself. */
  start: number;
  seconds: number;
}

export interface PlanProfile {
  name: string;
  flops: number;
  /** How often the plan was replayed in all, timed or not. */
  runs: number;
  calls: readonly KernelCall[];
  /** The timed replays in order; spans in the order of `calls`. */
  replays: CallSpan[][];
  /** The least seconds of every call over the replays: what other work adds to one of them is no time of the call. */
  least: Float64Array;
}

/** Replays of a plan that are timed. */
const TIMED_REPLAYS = 4;

export class Profiler {
  private readonly session: Session;
  private readonly timed = new Map<Plan, { runs: number; replays: TimedReplay[] }>();

  /** Times plans of `session` from now on, which must be open on an adapter with timestamps. */
  constructor(session: Session) {
    this.session = session;
    session.profiler = this;
  }

  /** Called by the session for every replay of a whole plan; true where the profiler has done it. */
  replay(plan: Plan): boolean {
    let entry = this.timed.get(plan);
    if (!entry) {
      entry = { runs: 0, replays: [] };
      this.timed.set(plan, entry);
    }
    entry.runs++;
    if (entry.replays.length >= TIMED_REPLAYS) return false;
    const timed = plan.executable!.replayTimed();
    if (timed) entry.replays.push(timed);
    return timed !== null;
  }

  /** Stops listening, waits for the device and returns all plans that ran, in the order of their first replay. */
  async finish(): Promise<PlanProfile[]> {
    this.session.profiler = null;
    const profiles: PlanProfile[] = [];
    for (const [plan, { runs, replays }] of this.timed) {
      const times = [];
      for (const replay of replays) times.push(await replay.read());
      if (times.length > 0) profiles.push(planProfile(plan, runs, times));
    }
    this.timed.clear();
    return profiles;
  }
}

/** Least seconds of every call of a plan over `replays` replays after a first one; null without timestamps. */
export async function leastTimes(plan: Plan, replays: number): Promise<Float64Array | null> {
  const first = await plan.executable!.profile();
  if (!first) return null;
  let least: Float64Array | null = null;
  for (let i = 0; i < replays; i++) {
    const times = (await plan.executable!.profile())!;
    const before: Float64Array = least ?? times;
    least = times.map((seconds, call) => Math.min(seconds, before[call]!));
  }
  return least ?? first;
}

function planProfile(plan: Plan, runs: number, times: readonly BigUint64Array[]): PlanProfile {
  const { calls } = plan.lowered;
  const seconds = (from: bigint, to: bigint) => Math.max(0, Number(to - from) * 1e-9);
  const replays = times.map((all) =>
    calls.map((call, i) => ({
      call,
      start: seconds(all[0]!, all[2 * i]!),
      seconds: seconds(all[2 * i]!, all[2 * i + 1]!),
    })),
  );
  // Memory is touched for the first time in the first replay, which is shown but not counted where there are others.
  const counted = replays.length > 1 ? replays.slice(1) : replays;
  const least = Float64Array.from(calls, (_, i) => Math.min(...counted.map((spans) => spans[i]!.seconds)));
  return { name: plan.name, flops: plan.flops, runs, calls, replays, least };
}

/** Calls of one kind together. */
export interface CallGroup {
  name: string;
  seconds: number;
  calls: number;
  flops: number;
  bytes: number;
}

/** Adds calls up by `key`, the costliest group first. */
export function groupCalls(
  calls: readonly KernelCall[],
  seconds: ArrayLike<number>,
  key: (call: KernelCall) => string,
  groups = new Map<string, CallGroup>(),
  times = 1,
): CallGroup[] {
  calls.forEach((call, i) => {
    const name = key(call);
    const group = groups.get(name) ?? { name, seconds: 0, calls: 0, flops: 0, bytes: 0 };
    group.seconds += seconds[i]! * times;
    group.calls += times;
    group.flops += call.flops * times;
    group.bytes += call.bytes * times;
    groups.set(name, group);
  });
  return [...groups.values()].sort((a, b) => b.seconds - a.seconds);
}

/** "matmul NT 144x256x256" and its like belong to one family. */
export function kernelFamily(call: KernelCall): string {
  return call.label.replace(/\s+\d+x\d+.*$/, "");
}

/** The label, with the numbers of bound words where it has no shape of its own. */
export function kernelShape(call: KernelCall): string {
  return /\d+x\d+/.test(call.label) ? call.label : `${call.label} [${call.bindings.map((b) => b.bytes / 4).join(" ")}]`;
}
