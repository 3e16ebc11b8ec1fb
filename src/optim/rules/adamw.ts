// AdamW on flat segments (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019; results as
// torch.optim.AdamW): one fused kernel reads gradient and moments and writes parameter and moments.

import adamwSource from "../../../shaders/adamw.wgsl" with { type: "text" };
import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import type { Lowering } from "../../tensor/lower.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool } from "../../tensor/variable.ts";
import type { OptimizerSettings } from "../settings.ts";
import {
  type Group,
  type Parts,
  type StepContext,
  segmentSlot,
  stateName,
  stretchWords,
  type UpdateRule,
} from "../step.ts";

/**
 * The words that AdamW's kernels read, for step `t` counted from 1. All that changes from step to step is worked out in
 * double precision (1 - 0.999 in float32 would be off by 5e-5). Where the device counts the steps itself (`counted`),
 * words 0 and 2 are left for it to correct.
 */
export function adamwWords(
  settings: OptimizerSettings,
  group: Group,
  rate: number,
  t: number,
  counted: boolean,
  words: Float32Array,
): void {
  const { beta1, beta2, epsilon } = settings;
  const own = rate * group.rateFactor;
  words[0] = counted ? own : own / (1 - beta1 ** t);
  words[1] = own * group.weightDecay;
  words[2] = counted ? 1 : 1 / Math.sqrt(1 - beta2 ** t);
  words[3] = epsilon;
  words[4] = 1 - beta1;
  words[5] = beta2;
  words[6] = 1 - beta2;
}

export class AdamWRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  readonly corrected = true;
  private readonly groups: readonly Group[];
  private readonly settings: OptimizerSettings;
  private readonly first: Pool[];
  private readonly second: Pool[];

  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.groups = groups;
    this.settings = settings;
    const moments = (name: string, suffix: string) =>
      groups.map((g) => session.adopt(g.parameters.twin(stateName(`${name} moment`, g.index), "optimizer", suffix)));
    this.first = moments("first", ".first");
    this.second = moments("second", ".second");
    this.state = Object.fromEntries([
      ...this.first.map((pool, i) => [stateName("first_moment", i), pool]),
      ...this.second.map((pool, i) => [stateName("second_moment", i), pool]),
    ]);
  }

  scalars(group: Group, rate: number, t: number, words: Float32Array): void {
    adamwWords(this.settings, group, rate, t, Boolean(this.settings.lossScale), words);
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const parts = lowering.scratch(2 * context.chunks);
    for (const stretch of context.stretches) {
      const segment = (pool: Pool) => segmentSlot(lowering, pool, stretch.segment);
      const { parameters, gradients } = this.groups[stretch.group]!;
      lowering.call({
        label: "adamw",
        source: adamwSource,
        constants: { LANE_SUM: laneSum },
        inputs: [segment(gradients), context.state],
        outputs: [parts],
        inPlace: [parameters, this.first[stretch.group]!, this.second[stretch.group]!].map(segment),
        params: stretchWords(stretch),
        grid: stretch.grid,
        flops: 80 * stretch.vectors,
      });
    }
    return { parts, count: context.chunks };
  }
}
