// `longtail doctor`: what this machine offers to Longtail, a short proof that its kernels compute rightly, and for each
// problem the one thing to do about it.

import type { Command, CommandContext } from "../command.ts";
import { examine } from "../doctor/examine.ts";
import { doctorText } from "../doctor/text.ts";

export const command: Command = {
  name: "doctor",
  summary: "check runtime, GPU, disk and kernels; name each fix",
  usage: "[--gpu=dawn|deno] [--folder=runs] [--json]",
  options: [
    { name: "gpu", value: "dawn|deno", summary: "WebGPU implementation to test in depth; default dawn" },
    { name: "folder", value: "PATH", summary: "folder of runs whose disk is measured; default runs" },
  ],
  description:
    "Changes nothing; a file written to measure the disk is removed again. Ends with 3 where a run could not start.",
  json: "result",
  examples: [
    ["longtail doctor", "the whole examination"],
    ["longtail doctor --json > doctor.json", "the same for a bug report"],
  ],
  async run(context: CommandContext) {
    const report = await examine(context);
    context.result(report, doctorText(report, context.columns()));
    return report.problems.some(({ level }) => level === "error") ? 3 : 0;
  },
};
