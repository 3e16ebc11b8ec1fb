// From [optim], [schedule] and [train] to the settings of the optimizer and its learning rates, for alignment and training
// alike.

import type { OptimizerSettings } from "../optim/optimizer.ts";
import type { Schedule } from "../optim/schedules.ts";
import type { Config } from "./config/schema.ts";

/** A loss scale that most runs keep: 2^12, doubled after 1000 updates without overflow. */
const LOSS_SCALE = { initial: 4096, growthInterval: 1000 };

export function optimizerSettings({ optim, train, device }: Config): OptimizerSettings {
  const scaled = train.loss_scale === "on" || (train.loss_scale === "auto" && device.precision === "f16");
  return {
    kind: optim.kind,
    beta1: optim.betas[0]!,
    beta2: optim.betas[1]!,
    epsilon: optim.eps,
    weightDecay: optim.weight_decay,
    maxNorm: optim.grad_clip,
    momentum: optim.momentum,
    ...(optim.ema > 0 ? { averageDecay: optim.ema } : {}),
    prodigy: {
      decouple: true,
      useBiasCorrection: optim.bias_correction,
      safeguardWarmup: optim.safeguard_warmup,
      d0: optim.d0,
      dCoef: optim.d_coef,
      ...(optim.growth_rate > 0 ? { growthRate: optim.growth_rate } : {}),
      sliceP: optim.slice,
    },
    adafactor: { scaleParameter: optim.scale_parameter, relativeStep: optim.relative_step, warmupInit: false },
    lossScale: scaled ? LOSS_SCALE : null,
  };
}

/** @param total updates of the whole run; 0 where the schedule does not depend on it */
export function rateSchedule({ optim, schedule }: Config, total: number): Schedule {
  const kind = schedule.kind === "constant" && schedule.warmup > 0 ? "constant_with_warmup" : schedule.kind;
  return {
    kind,
    rate: optim.lr,
    warmup: schedule.warmup,
    total,
    cycles: schedule.cycles,
    power: schedule.power,
    end: schedule.end,
  };
}
