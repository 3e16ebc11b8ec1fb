// Lion on flat segments (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023): every value moves by the
// rate in the direction of a momentum's sign, so the rate is a third to a tenth of AdamW's and the decay larger.

import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import lionSource from "../../../shaders/lion.wgsl" with { type: "text" };
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

export class LionRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  private readonly groups: readonly Group[];
  private readonly settings: OptimizerSettings;
  private readonly momentum: Pool[];

  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.groups = groups;
    this.settings = settings;
    this.momentum = groups.map((g) =>
      session.adopt(g.parameters.twin(stateName("momentum", g.index), "optimizer", ".momentum")),
    );
    this.state = Object.fromEntries(this.momentum.map((pool, i) => [stateName("momentum", i), pool]));
  }

  scalars(group: Group, rate: number, _t: number, words: Float32Array): void {
    const { beta1, beta2 } = this.settings;
    const own = rate * group.rateFactor;
    words.set([own, own * group.weightDecay, 1 - beta1, beta1, 1 - beta2, beta2]);
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const parts = lowering.scratch(2 * context.chunks);
    for (const stretch of context.stretches) {
      const segment = (pool: Pool) => segmentSlot(lowering, pool, stretch.segment);
      const { parameters, gradients } = this.groups[stretch.group]!;
      lowering.call({
        label: "lion",
        source: lionSource,
        constants: { LANE_SUM: laneSum },
        inputs: [segment(gradients), context.state],
        outputs: [parts],
        inPlace: [segment(parameters), segment(this.momentum[stretch.group]!)],
        params: stretchWords(stretch),
        grid: stretch.grid,
        flops: 60 * stretch.vectors,
      });
    }
    return { parts, count: context.chunks };
  }
}
