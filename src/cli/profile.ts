// `--profile`: times the first replays of every plan of a run, call by call, and leaves profile.json for Perfetto or
// chrome://tracing together with a table of what the device spent its time on.

import type { EventSink } from "../base/events.ts";
import { adapterLabel, grouped } from "../evaluation/format.ts";
import { type TraceSlice, type TraceTrack, traceEventsText } from "../formats/trace_events.ts";
import type { Gpu } from "../gpu/device.ts";
import {
  type CallGroup,
  type CallSpan,
  groupCalls,
  kernelShape,
  type PlanProfile,
  Profiler,
} from "../tensor/profile.ts";
import type { Session } from "../tensor/session.ts";
import type { CommandContext, OptionSpec } from "./command.ts";
import { renderTable } from "./table.ts";

export const PROFILE_OPTION: OptionSpec = {
  name: "profile",
  summary: "time every kernel of the first replays; profile.json opens in Perfetto and chrome://tracing",
};

/** Lines of the table of kernels. */
const MOST_KERNELS = 15;
/** Microseconds between two timed replays on the trace; what lay between them is left out. */
const GAP = 1000;

export interface ProfileTarget {
  context: Pick<CommandContext, "arguments" | "files" | "print" | "columns">;
  gpu: Gpu;
  session: Session;
  emit: EventSink;
  /** Where profile.json goes. */
  path: string;
}

/**
 * Does `work`, which replays plans of an open session; with --profile it is timed, also where it is stopped. An adapter
 * without timestamps gives a warning (E-ENV-070) and no file.
 */
export async function profiled<T>(target: ProfileTarget, work: () => Promise<T>): Promise<T> {
  const { context, gpu, session, emit } = target;
  if (!context.arguments.flags["profile"]) return work();
  if (!gpu.facts.timestamps) {
    emit({
      kind: "warning",
      code: "E-ENV-070",
      text: `${gpu.facts.name} has no timestamp queries: --profile has nothing to measure with and writes no file`,
    });
    return work();
  }
  const profiler = new Profiler(session);
  try {
    const result = await work();
    await write(target, await profiler.finish());
    return result;
  } catch (error) {
    // What is told is why the run ended; a device that is lost has no times to give.
    if (session.profiler)
      await profiler
        .finish()
        .then((plans) => write(target, plans))
        .catch(() => undefined);
    throw error;
  }
}

async function write({ context, gpu, path, emit }: ProfileTarget, plans: readonly PlanProfile[]): Promise<void> {
  if (plans.length === 0) return;
  await context.files.writeAtomic(path, profileText(gpu, plans));
  context.print(profileTables(plans, context.columns()));
  emit({ kind: "message", text: `profile: ${path} (open it in ui.perfetto.dev or chrome://tracing)` });
}

const rate = (amount: number, seconds: number): number | null => (amount > 0 && seconds > 0 ? amount / seconds : null);

const sum = (values: Float64Array): number => values.reduce((a, b) => a + b, 0);

/** The trace, and the same as plain rows under "longtail". */
export function profileText(gpu: Pick<Gpu, "facts">, plans: readonly PlanProfile[]): string {
  const { facts } = gpu;
  const rows = plans.map((plan) => {
    const total = sum(plan.least);
    return {
      plan: plan.name,
      replays: plan.runs,
      timed: plan.replays.length,
      seconds: total,
      flops: plan.flops,
      flops_per_second: rate(plan.flops, total),
      kernels: groupCalls(plan.calls, plan.least, kernelShape).map((g) => ({
        kernel: g.name,
        calls: g.calls,
        seconds: g.seconds,
        share: total > 0 ? g.seconds / total : 0,
        flops_per_second: rate(g.flops, g.seconds),
        bytes_per_second: rate(g.bytes, g.seconds),
      })),
    };
  });
  const adapter = { name: facts.name, driver: facts.description, software: facts.software };
  return traceEventsText(adapterLabel({ name: facts.name, driver: facts.description }), tracksOf(plans), {
    longtail: { adapter, plans: rows },
  });
}

/** One track a plan; its timed replays lie one behind the other, and calls of one scope lie in a slice of their own. */
function tracksOf(plans: readonly PlanProfile[]): TraceTrack[] {
  let origin = 0;
  return plans.map((plan) => {
    const slices: TraceSlice[] = [];
    plan.replays.forEach((spans, i) => {
      const inner = replaySlices(plan, spans, origin);
      const end = inner.reduce((most, s) => Math.max(most, s.start + s.duration), origin);
      slices.push({
        name: plan.name,
        category: "plan",
        start: origin,
        duration: end - origin,
        args: { replay: i + 1, calls: spans.length, GFLOP: plan.flops / 1e9 },
      });
      slices.push(...inner);
      origin = end + GAP;
    });
    return { name: plan.name, slices };
  });
}

function replaySlices(plan: PlanProfile, spans: readonly CallSpan[], origin: number): TraceSlice[] {
  const slices: TraceSlice[] = [];
  const total = spans.reduce((seconds, span) => seconds + span.seconds, 0);
  let scope: TraceSlice | undefined;
  let free = origin;
  for (const { call, start, seconds } of spans) {
    // Calls that do not wait for each other may overlap, and slices beside each other must not.
    const from = Math.max(free, origin + start * 1e6);
    const to = Math.max(from, origin + (start + seconds) * 1e6);
    free = to;
    if (call.scope !== scope?.name) {
      scope = call.scope ? { name: call.scope, category: "scope", start: from, duration: 0 } : undefined;
      if (scope) slices.push(scope);
    }
    if (scope) scope.duration = to - scope.start;
    const [flops, bytes] = [rate(call.flops, seconds), rate(call.bytes, seconds)];
    slices.push({
      name: call.label,
      category: "kernel",
      start: from,
      duration: to - from,
      args: {
        plan: plan.name,
        "GFLOP/s": flops && flops / 1e9,
        "GB/s": bytes && bytes / 1e9,
        "share of the replay": total > 0 ? seconds / total : 0,
        workgroups: call.grid.join(" x "),
        words: call.bindings.map((b) => b.bytes / 4).join(" "),
      },
    });
  }
  return slices;
}

const digits = (value: number | null, count: number): string => (value === null ? "-" : value.toFixed(count));

/** Plans by their share of the device's time in this run, and the costliest kernels of all of them. */
export function profileTables(plans: readonly PlanProfile[], columns: number): string {
  const kernels = new Map<string, CallGroup>();
  for (const { calls, least, runs } of plans) groupCalls(calls, least, kernelShape, kernels, runs);
  const groups = [...kernels.values()].sort((a, b) => b.seconds - a.seconds);
  const total = groups.reduce((seconds, g) => seconds + g.seconds, 0);
  const percent = (seconds: number) => `${total > 0 ? ((100 * seconds) / total).toFixed(1) : "0.0"} %`;
  const right = (title: string) => ({ title, align: "right" as const });
  const byPlan = plans
    .map((plan) => ({ plan, each: sum(plan.least) }))
    .sort((a, b) => b.each * b.plan.runs - a.each * a.plan.runs);
  const planTable = renderTable(
    [{ title: "plan" }, right("share"), right("replays"), right("ms each"), right("calls"), right("GFLOP/s")],
    byPlan.map(({ plan, each }) => [
      plan.name,
      percent(each * plan.runs),
      grouped(plan.runs),
      (each * 1e3).toFixed(2),
      grouped(plan.calls.length),
      digits(rate(plan.flops / 1e9, each), 1),
    ]),
    columns,
  );
  const kernelTable = renderTable(
    [{ title: "kernel" }, right("share"), right("us each"), right("calls"), right("GFLOP/s"), right("GB/s")],
    groups
      .slice(0, MOST_KERNELS)
      .map((g) => [
        g.name,
        percent(g.seconds),
        ((g.seconds / g.calls) * 1e6).toFixed(0),
        grouped(g.calls),
        digits(rate(g.flops / 1e9, g.seconds), 1),
        digits(rate(g.bytes / 1e9, g.seconds), 1),
      ]),
    columns,
  );
  return `\ndevice time by plan and by kernel (least of the timed replays, times all replays)\n\n${planTable}\n${kernelTable}`;
}
