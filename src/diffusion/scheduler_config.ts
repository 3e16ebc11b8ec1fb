// The sampler's schedule that a pipeline brings along: scheduler/scheduler_config.json of diffusers' folders, read into the
// settings of shifting.ts. What would change the sigmas and is not understood is refused, never ignored.

import { LongtailError } from "../base/errors.ts";
import { empiricalSigmas } from "./empirical_shift.ts";
import { DEV_SHIFT, SCHNELL_SHIFT, type ShiftConfig, samplerSigmas } from "./shifting.ts";

/** A scheduler_config.json and where it lies. */
export interface SchedulerFile {
  config: Readonly<Record<string, unknown>>;
  path: string;
}

/** Other ways to space sigmas; true in no FLUX.1 pipeline. */
const OTHER_SIGMAS = [
  "use_karras_sigmas",
  "use_exponential_sigmas",
  "use_beta_sigmas",
  "use_flow_sigmas",
  "invert_sigmas",
  "stochastic_sampling",
];

/**
 * Sigmas that a pipeline is meant to be drawn with, `steps + 1` values that end at 0. FLUX.2's pipelines work out the exponent
 * of a shift that follows the picture themselves, so that the numbers for it in their scheduler's file do not count.
 * @param tokens packed image tokens
 * @throws LongtailError E-FILE-038
 */
export function pipelineSigmas(
  pipeline: { family: "flux1" | "flux2"; scheduler: SchedulerFile | null; guided: boolean },
  steps: number,
  tokens: number,
): Float32Array {
  const { family, scheduler, guided } = pipeline;
  if (family === "flux2" && (!scheduler || shiftConfigOf(scheduler, guided).dynamic))
    return empiricalSigmas(steps, tokens);
  return samplerSigmas(steps, shiftConfigOf(scheduler, guided), tokens);
}

/**
 * The schedule of a pipeline's own scheduler. Without the file it is FLUX.1-dev's for models with a guidance embedding and
 * FLUX.1-schnell's for others.
 * @throws LongtailError E-FILE-038 where the scheduler is of another class or spaces its sigmas in another way
 */
export function shiftConfigOf(scheduler: SchedulerFile | null, guided: boolean): ShiftConfig {
  if (!scheduler) return guided ? DEV_SHIFT : SCHNELL_SHIFT;
  const { config, path } = scheduler;
  const refuse = (what: string): never => {
    throw new LongtailError("E-FILE-038", {
      what,
      where: path,
      why: "its sigmas would not be those that the model is meant to be drawn with",
      fix: 'give sample.shift a number, for example 3, in place of "auto"',
    });
  };
  const name = config["_class_name"] ?? "FlowMatchEulerDiscreteScheduler";
  if (name !== "FlowMatchEulerDiscreteScheduler") refuse(`the scheduler is ${JSON.stringify(name)}`);
  const other = OTHER_SIGMAS.find((key) => config[key] === true);
  if (other) refuse(`${other} is not supported`);
  const terminal = config["shift_terminal"];
  if (typeof terminal === "number" && terminal !== 0) refuse("shift_terminal is not supported");
  const type = config["time_shift_type"] ?? "exponential";
  if (type !== "exponential") refuse(`time_shift_type ${JSON.stringify(type)} is not supported`);
  const number = (key: string, fallback: number): number => {
    const value = config[key] ?? fallback;
    return typeof value === "number" && Number.isFinite(value) ? value : refuse(`${key} is not a number`);
  };
  const shift = number("shift", 1);
  const found = {
    shift,
    dynamic: Boolean(config["use_dynamic_shifting"] ?? false),
    baseShift: number("base_shift", DEV_SHIFT.baseShift),
    maxShift: number("max_shift", DEV_SHIFT.maxShift),
    baseTokens: number("base_image_seq_len", DEV_SHIFT.baseTokens),
    maxTokens: number("max_image_seq_len", DEV_SHIFT.maxTokens),
  };
  if (!(shift > 0)) refuse(`shift is ${shift}`);
  if (found.dynamic && found.baseTokens === found.maxTokens) refuse("base_image_seq_len equals max_image_seq_len");
  return found;
}
