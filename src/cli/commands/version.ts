// `longtail version`: the versions that a bug report needs.

import { environmentFacts } from "../../platform/environment.ts";
import type { Command } from "../command.ts";

export const command: Command = {
  name: "version",
  summary: "print the versions of Longtail, its runtime and Dawn",
  usage: "",
  options: [],
  json: "result",
  async run(context) {
    const { longtail, commit, runtime, dawn, system } = await environmentFacts();
    const lines = [
      `longtail ${longtail}${commit ? ` (${commit})` : ""}`,
      `${runtime.name} ${runtime.version}, V8 ${runtime.v8}`,
      ...(dawn ? [`Dawn (npm webgpu ${dawn})`] : []),
      `${system.name}, ${system.arch}`,
    ];
    context.result({ longtail, commit, runtime, dawn, system }, lines.join("\n"));
    return 0;
  },
};
