// What the numbers of a training run say in words, for the top of its page and for its model card. Careful on purpose:
// a falling training loss alone is no sign of a good result, and only held-out pictures tell learning from memorising.

import { compact, counted, grouped, score } from "./format.ts";
import { meanWindow } from "./report_charts.ts";
import { ADAPTER_NAMES, type TrainReportData, uniqueSteps } from "./train_report_data.ts";
import type { Tone } from "./verdict.ts";

export interface Finding {
  tone: Tone;
  text: string;
}

/** A rise of the validation loss above its lowest value by more than this share of its fall is told. */
const TOLD_RISE = 0.1;
/** Waiting for pictures below this share of the time is not worth a sentence. */
const TOLD_STALL = 0.05;
/** A measured memory further from the plan than this is told. */
const TOLD_MEMORY = 0.1;

/** «LoRA of rank 16», «DoRA of rank 8», «LoKr with factor 8», «full fine-tuning». */
export function adapterText({ method }: Pick<TrainReportData, "method">): string {
  const name = ADAPTER_NAMES[method.adapter];
  if (method.adapter === "full") return name;
  const rank = method.rank ? ` of rank ${grouped(method.rank)}` : "";
  return `${name}${rank}${method.adapter === "lokr" && method.factor ? ` with factor ${method.factor}` : ""}`;
}

/** The page's headline. */
export function trainHeadline(data: TrainReportData): string {
  const { status, method, model } = data;
  if (status.stepsDone === 0) return `No step of training was made on ${model.label}`;
  const steps = counted(status.stepsDone, "step");
  const what = method.adapter === "full" ? model.label : `A ${adapterText(data)} for ${model.label}`;
  return `${what}, trained for ${steps}${data.trigger ? ` on «${data.trigger}»` : ""}`;
}

export interface LossChange {
  first: number;
  last: number;
  /** Steps averaged at each end. */
  window: number;
}

/** Mean training loss at both ends of the run; null for runs too short to average. */
export function lossChange(data: TrainReportData): LossChange | null {
  const losses = uniqueSteps(data.curves?.steps ?? []).flatMap((p) =>
    p.loss !== undefined && Number.isFinite(p.loss) ? [p.loss] : [],
  );
  const window = meanWindow(losses.length);
  if (losses.length < 2 * window) return null;
  const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
  return { first: mean(losses.slice(0, window)), last: mean(losses.slice(-window)), window };
}

/**
 * The learning rate in words. Schedules only lower the rate that was set; a curve above it is that of an optimizer which
 * works out its own (Adafactor's relative step), and then the curve is what acted.
 */
export function rateText({ method, curves }: Pick<TrainReportData, "method" | "curves">): string | undefined {
  const { learningRate, schedule, warmup } = method;
  const rates = uniqueSteps(curves?.steps ?? []).flatMap((p) =>
    p.learningRate !== undefined && Number.isFinite(p.learningRate) ? [p.learningRate] : [],
  );
  const highest = rates.reduce((high, rate) => Math.max(high, rate), 0);
  if (learningRate === undefined) return undefined;
  if (highest > learningRate * (1 + 1e-6)) {
    const last = rates.at(-1)!;
    return `${compact(rates[0]!)}${last === rates[0] ? "" : ` to ${compact(last)}`}, the optimizer's own`;
  }
  const words = [compact(learningRate), schedule, warmup ? `warm-up ${counted(warmup, "step")}` : ""];
  return words.filter(Boolean).join(", ");
}

export interface ValidationChange {
  before: { step: number; loss: number };
  last: { step: number; loss: number };
  best: { step: number; loss: number };
}

/** First, last and lowest validation loss; null where fewer than two were measured. */
export function validationChange(data: TrainReportData): ValidationChange | null {
  const points = uniqueSteps(data.curves?.validation ?? []).filter((p) => Number.isFinite(p.loss));
  if (points.length < 2) return null;
  const best = points.reduce((low, p) => (p.loss < low.loss ? p : low));
  return { before: points[0]!, last: points.at(-1)!, best };
}

/** What the curve of the fixed noise is measured on: held-out pictures, or the training's own where none were held out. */
export function fixedLossName(data: TrainReportData): string {
  return data.data && !data.data.validation ? "loss with fixed noise" : "validation loss";
}

/** Sentences about the run in order of weight. */
export function trainFindings(data: TrainReportData): Finding[] {
  return [...lossFindings(data), ...healthFindings(data), ...dataFindings(data), ...speedFindings(data)];
}

function lossFindings(data: TrainReportData): Finding[] {
  const found: Finding[] = [];
  const validation = validationChange(data);
  if (validation) {
    const { before, last, best } = validation;
    const name = fixedLossName(data);
    const pictures = data.data?.validation ? ` on ${counted(data.data.validation, "held-out picture")}` : "";
    const from = `${score(before.loss)} at step ${grouped(before.step)} to ${score(last.loss)} at step ${grouped(last.step)}`;
    const fall = before.loss - best.loss;
    if (best.step === before.step) {
      found.push({
        tone: "worse",
        text: `The ${name}${pictures} rose from ${from}: it was never below its start.`,
      });
    } else if (last.loss - best.loss > TOLD_RISE * fall) {
      found.push({
        tone: "worse",
        text: `The ${name}${pictures} was lowest at step ${grouped(best.step)} (${score(best.loss)}, from ${score(before.loss)} at first) and rose to ${score(last.loss)} since: overfitting, or a learning rate too high.`,
      });
    } else {
      found.push({
        tone: "better",
        text: `The ${name}${pictures} fell from ${from}, always with the same noise.`,
      });
    }
  } else if (data.status.stepsDone > 0) {
    found.push({
      tone: "unknown",
      text: "No held-out pictures were measured over time, so the numbers cannot tell learning from memorising.",
    });
  }
  if (validation && data.data && !data.data.validation) {
    found.push({
      tone: "unknown",
      text: "No pictures were held out: that loss is of training pictures and cannot tell learning from memorising.",
    });
  }
  const loss = lossChange(data);
  if (loss) {
    const text = `The mean training loss was ${score(loss.first)} over the first ${loss.window} steps and ${score(loss.last)} over the last ${loss.window}. It depends more on the noise levels that came up than on what was learnt.`;
    found.push({ tone: "noted", text });
  }
  return found;
}

function healthFindings(data: TrainReportData): Finding[] {
  const found: Finding[] = [];
  const steps = uniqueSteps(data.curves?.steps ?? []);
  const skipped = steps.filter((p) => p.finite === false).length;
  if (skipped > 0) {
    const text = `${counted(skipped, "step")} had a gradient that was not finite and changed no weight.`;
    // A loss scale is found by trying: some such steps belong to it.
    const isScaled = steps.some((p) => p.lossScale !== undefined);
    found.push({ tone: isScaled || skipped < 3 ? "noted" : "worse", text });
  }
  const warnings = data.events?.length ?? 0;
  if (warnings > 0) {
    const text = `${counted(warnings, "warning or error", "warnings and errors")} came up; the report lists them.`;
    found.push({ tone: "noted", text });
  }
  return found;
}

function dataFindings({ data }: TrainReportData): Finding[] {
  const dropped = data?.dropped?.length ?? 0;
  if (!data || dropped === 0) return [];
  const text = `${counted(dropped, "file")} of the data ${dropped === 1 ? "was" : "were"} left out; ${counted(data.pictures, "picture")} ${data.pictures === 1 ? "was" : "were"} learnt from.`;
  return [{ tone: "noted", text }];
}

function speedFindings(data: TrainReportData): Finding[] {
  const found: Finding[] = [];
  const stall = data.speed?.loaderStall ?? 0;
  if (stall > TOLD_STALL) {
    const text = `The device waited for pictures ${percent(stall)} of the time: reading and preparing them was the slowest part.`;
    found.push({ tone: "worse", text });
  }
  const total = data.memory?.find((m) => m.category === "total");
  if (total?.allocatedBytes !== undefined && total.plannedBytes > 0) {
    const off = total.allocatedBytes / total.plannedBytes - 1;
    if (Math.abs(off) > TOLD_MEMORY) {
      const text = `Device memory measured ${percent(Math.abs(off))} ${off > 0 ? "more" : "less"} than was planned.`;
      found.push({ tone: off > 0 ? "worse" : "noted", text });
    }
  }
  return found;
}

/** «7 %», «0.4 %». */
export function percent(share: number): string {
  const value = 100 * share;
  return `${value > 0 && value < 1 ? value.toFixed(1) : value.toFixed(0)} %`;
}
