// What an alignment cannot do although other commands can, told before anything is opened.

import { LongtailError } from "../../base/errors.ts";
import type { Config } from "../config/schema.ts";
import { checkOffload } from "../offload.ts";

/** @throws LongtailError E-CFG-052 for schedules without a length and for a running mean, which alignment does not keep */
export function checkAlignment(config: Config): void {
  checkOffload(config);
  const { align, schedule, optim } = config;
  if (align.steps === "ladder" && schedule.kind !== "constant") {
    throw new LongtailError("E-CFG-052", {
      where: "schedule.kind",
      what: `a ${schedule.kind} schedule has no end to run to`,
      why: 'align.steps = "ladder" chooses the number of updates while the run goes on',
      fix: 'give align.steps a number, or use schedule.kind = "constant"',
    });
  }
  if (optim.ema > 0) {
    throw new LongtailError("E-CFG-052", {
      where: "optim.ema",
      what: "an alignment keeps no running mean of the weights",
      why: "its updates are few, and a mean over them would mostly be the model before",
      fix: "set optim.ema = 0; longtail train keeps one",
    });
  }
}
