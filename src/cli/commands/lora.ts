// `longtail lora`: tools for LoRA, DoRA and LoKr files, on the host alone. Each subcommand checks its words, calls one
// function of cli/lora, and prints a table.

import { LongtailError, nearestName } from "../../base/errors.ts";
import type { Command, CommandContext } from "../command.ts";
import { SUBCOMMANDS, subcommandHelp } from "../lora/subcommands.ts";

export const command: Command = {
  name: "lora",
  summary: "inspect, verify, convert, merge, resize and compare LoRA files",
  usage: "inspect|verify|convert|merge|resize|diff FILE ... [--flags]",
  options: [
    { name: "base", value: "MODEL", summary: "verify, merge: flux-dev, flux-schnell, embedded, a folder or a file" },
    { name: "style", value: "STYLE", summary: "convert: diffusers, peft, kohya, onetrainer or lycoris" },
    { name: "dtype", value: "TYPE", summary: "convert: f32, f16 or bf16" },
    {
      name: "scales",
      value: "PLACE",
      summary: "convert: where diffusers' files keep alpha, metadata, tensors or folded",
    },
    { name: "strength", value: "LIST", summary: "merge: a strength for each file, 0.8,0.5; default 1" },
    { name: "rank", value: "N", summary: "resize: rank of every layer" },
    { name: "energy", value: "SHARE", summary: "resize: share of each layer's energy to keep, 0.95" },
    { name: "output", value: "FILE", summary: "convert, merge, resize: the file to write" },
  ],
  description:
    SUBCOMMANDS.map(({ name, summary }) => `${name}: ${summary}.`).join(" ") +
    " longtail lora help SUBCOMMAND explains one in full. Exit code 4 where verify finds a fault.",
  explain: subcommandHelp,
  positionals: [0, 64],
  json: "result",
  examples: SUBCOMMANDS.map(({ examples }) => examples[0]!),
  run: lora,
};

async function lora(context: CommandContext): Promise<number> {
  const [name, ...words] = context.arguments.positionals;
  if (name === undefined || name === "help") {
    const text = subcommandHelp(words[0]);
    context.result({ help: text }, text);
    return 0;
  }
  const found = SUBCOMMANDS.find((one) => one.name === name);
  if (!found) throw unknown(name);
  if (words.length < found.words[0] || words.length > found.words[1]) {
    throw new LongtailError("E-ARG-070", {
      where: `lora ${name}`,
      what: words.length < found.words[0] ? "a file is missing" : `${words.length} files are too many`,
      fix: `usage: longtail lora ${name} ${found.usage}`,
    });
  }
  for (const flag of Object.keys(context.arguments.flags)) {
    if (found.flags.includes(flag)) continue;
    throw new LongtailError("E-ARG-071", {
      where: `--${flag}`,
      what: `longtail lora ${name} does not take it`,
      fix: `usage: longtail lora ${name} ${found.usage}`,
    });
  }
  return await found.run(context, words);
}

function unknown(name: string): LongtailError {
  const near = nearestName(
    name,
    SUBCOMMANDS.map((one) => one.name),
  );
  return new LongtailError("E-ARG-072", {
    where: name,
    what: "longtail lora has no such subcommand",
    fix: near ? `did you mean longtail lora ${near}?` : `use ${SUBCOMMANDS.map((one) => one.name).join(", ")}`,
  });
}
