// `longtail demo`, which `npm start` runs: the embedded experiment from nothing to a report.

import type { Command } from "../command.ts";
import { PROFILE_OPTION } from "../profile.ts";
import { align } from "./align.ts";

export const command: Command = {
  name: "demo",
  summary: "run the embedded experiment: align a small model, leave a report",
  usage: "[--section.key=value ...]",
  options: [PROFILE_OPTION],
  description:
    "A small FLUX.1 model draws 431 common emoji well and 94 culturally specific ones badly. SRPO with MIA pairs lifts 32 " +
    "of them with a small CLIP reward; another CLIP judges. Minutes on two CPU cores, seconds on a GPU.",
  positionals: [0, 0],
  configuration: true,
  examples: [
    ["longtail demo", "what `npm start` does"],
    ["longtail demo --adapter=lora", "train a LoRA instead of all weights"],
    ["longtail demo --align.steps=160", "longer: shapes begin to move"],
  ],
  run: (context) => align(context, "embedded", "demo"),
};
