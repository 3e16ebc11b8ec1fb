// `longtail init`: prints a preset as a commented configuration to be changed. What is printed is the preset's own text, so
// a file made today and the preset of the same name are one and the same run.

import { LongtailError, nearestName } from "../../base/errors.ts";
import type { Command, CommandContext } from "../command.ts";

export const command: Command = {
  name: "init",
  summary: "print a commented configuration to start from",
  usage: "[preset] [--output=FILE]",
  options: [{ name: "output", value: "FILE", summary: "write it there, if the file does not exist yet" }],
  description: "Without a name, lists the presets.",
  positionals: [0, 1],
  json: "result",
  examples: [
    ["longtail init", "the presets"],
    ["longtail init lora > my.toml", "a LoRA on pictures; then: longtail train my.toml"],
  ],
  async run(context) {
    const name = context.arguments.positionals[0];
    const names = (await context.sources.presetNames()).sort();
    if (name === undefined) return await list(context, names);
    if (!names.includes(name)) {
      const near = nearestName(name, names);
      throw new LongtailError("E-CFG-005", {
        where: name,
        what: "there is no such preset",
        fix: near ? `did you mean ${near}?` : `the presets are ${names.join(", ")}`,
      });
    }
    const text = await context.sources.readPreset(name);
    const { output } = context.arguments.flags;
    if (typeof output !== "string") {
      context.result({ preset: name, text }, text.trimEnd());
      return 0;
    }
    if (await context.files.exists(output)) {
      throw new LongtailError("E-FILE-091", {
        where: output,
        what: "the file exists",
        why: "a configuration that may have been changed is not overwritten",
        fix: "choose another name, or remove it",
      });
    }
    await context.files.writeAtomic(output, text);
    context.result({ preset: name, output }, `${output} written; it is the preset ${name}`);
    return 0;
  },
};

async function list(context: CommandContext, names: readonly string[]): Promise<number> {
  const presets = [];
  for (const name of names) presets.push({ name, summary: summaryOf(await context.sources.readPreset(name)) });
  const width = Math.max(...names.map((name) => name.length));
  const lines = presets.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  context.result({ presets }, ["presets:", ...lines, "", "longtail init <preset> prints one"].join("\n"));
  return 0;
}

/** The first sentence of the comment that a preset begins with. */
function summaryOf(text: string): string {
  const comment = text
    .split("\n")
    .slice(0, 8)
    .filter((line) => line.startsWith("#"))
    .map((line) => line.replace(/^#\s*/, ""))
    .join(" ");
  return comment.split(/\.(?:\s|$)/)[0]!.trim();
}
