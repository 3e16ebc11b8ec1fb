// `longtail help`: the first screen, one command, or the keys of the configuration.

import { LongtailError, nearestName } from "../../base/errors.ts";
import { describeSections } from "../../runs/config/schema.ts";
import type { Command } from "../command.ts";
import { loadCommands } from "../commands.ts";
import { commandHelp, configHelp, generalHelp, sectionHelp } from "../help.ts";

export const command: Command = {
  name: "help",
  summary: "explain a command, a section of the configuration or a key",
  usage: "[command | config [section | key]]",
  options: [],
  positionals: [0, 2],
  json: "result",
  examples: [
    ["longtail help align", "all about one command"],
    ["longtail help config align", "the keys of [align] with their defaults"],
    ["longtail help align.discount_pos", "one key"],
  ],
  async run(context) {
    const [topic, name] = context.arguments.positionals;
    const text = helpText(await loadCommands(), topic, name);
    context.result({ help: text }, text);
    return 0;
  },
};

/** The help text of a topic; throws E-ARG-006 for one that does not exist. */
export function helpText(commands: readonly Command[], topic?: string, name?: string): string {
  if (topic === undefined) return generalHelp(commands);
  if (topic === "config") {
    if (name === undefined) return configHelp();
    const section = sectionHelp(name);
    if (section) return section;
    throw unknownTopic(
      name,
      describeSections().map((one) => one.name.replace("[]", "")),
    );
  }
  const found = commands.find((one) => one.name === topic);
  if (found) return name !== undefined && found.explain ? found.explain(name) : commandHelp(found);
  const section = sectionHelp(topic);
  if (section) return section;
  throw unknownTopic(topic, [
    ...commands.map((one) => one.name),
    "config",
    ...describeSections().map((one) => one.name.replace("[]", "")),
  ]);
}

function unknownTopic(topic: string, topics: readonly string[]): LongtailError {
  const near = nearestName(topic, topics);
  return new LongtailError("E-ARG-006", {
    where: topic,
    what: "there is no help on this",
    fix: near ? `did you mean ${near}?` : "longtail help lists the commands, longtail help config the sections",
  });
}
