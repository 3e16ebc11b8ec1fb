// From the options of the reference classes, as dumps spell them, to settings of the own optimizer.

import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import { ADAMW } from "./optimizer.ts";

/** Settings and learning rate; throws a plain Error for a class that is not known. */
export function settingsOf(options: any): { settings: OptimizerSettings; rate: number } {
  const [beta1, beta2] = options.betas ?? [0.9, 0.999];
  const common: OptimizerSettings = {
    ...ADAMW,
    beta1,
    beta2,
    epsilon: options.eps ?? 1e-8,
    weightDecay: options.weight_decay ?? 0,
  };
  const rate: number = options.lr ?? 0;
  switch (options.class) {
    case "SGD":
      return { settings: { ...common, kind: "sgd", momentum: options.momentum }, rate };
    case "AdamW":
      return { settings: common, rate };
    case "Lion":
      return { settings: { ...common, kind: "lion" }, rate };
    case "Prodigy":
      return {
        settings: {
          ...common,
          kind: "prodigy",
          prodigy: {
            beta3: options.beta3 ?? undefined,
            decouple: options.decouple,
            useBiasCorrection: options.use_bias_correction,
            safeguardWarmup: options.safeguard_warmup,
            d0: options.d0,
            dCoef: options.d_coef,
            growthRate: options.growth_rate,
            sliceP: options.slice_p,
          },
        },
        rate,
      };
    case "Adafactor":
      return {
        settings: {
          ...common,
          kind: "adafactor",
          adafactor: {
            scaleParameter: options.scale_parameter,
            relativeStep: options.relative_step,
            warmupInit: options.warmup_init,
            beta1: options.beta1,
          },
        },
        rate,
      };
    default:
      throw new Error(`no own optimizer stands for ${options.class}`);
  }
}
