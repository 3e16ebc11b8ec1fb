// Stochastic gradient descent with momentum on flat segments, as torch.optim.SGD: weight decay is added to the gradient,
// and the momentum begins with the first gradient itself.

import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import sgdSource from "../../../shaders/sgd.wgsl" with { type: "text" };
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

export class SgdRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  private readonly groups: readonly Group[];
  private readonly settings: OptimizerSettings;
  private readonly momentum: Pool[] | null;

  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.groups = groups;
    this.settings = settings;
    this.momentum = settings.momentum
      ? groups.map((g) => session.adopt(g.parameters.twin(stateName("momentum", g.index), "optimizer", ".momentum")))
      : null;
    this.state = Object.fromEntries((this.momentum ?? []).map((pool, i) => [stateName("momentum", i), pool]));
  }

  scalars(group: Group, rate: number, _t: number, words: Float32Array): void {
    words.set([rate * group.rateFactor, group.weightDecay, this.settings.momentum ?? 0]);
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const parts = lowering.scratch(2 * context.chunks);
    for (const stretch of context.stretches) {
      const segment = (pool: Pool) => segmentSlot(lowering, pool, stretch.segment);
      const { parameters, gradients } = this.groups[stretch.group]!;
      const momentum = this.momentum?.[stretch.group];
      lowering.call({
        label: "sgd",
        source: sgdSource,
        constants: { LANE_SUM: laneSum, MOMENTUM: momentum !== undefined },
        inputs: [segment(gradients), context.state],
        outputs: [parts],
        inPlace: [segment(parameters), ...(momentum ? [segment(momentum)] : [])],
        params: stretchWords(stretch),
        grid: stretch.grid,
        flops: 40 * stretch.vectors,
      });
    }
    return { parts, count: context.chunks };
  }
}
