// Help texts, made from the commands and the configuration schema, laid out for 80 columns.

import { ALIASES } from "../runs/config/load.ts";
import { describeSections, type OptionInfo, type SectionInfo } from "../runs/config/schema.ts";
import { tomlValue, wrapText } from "../runs/config/toml.ts";
import { COMMON_OPTIONS } from "./arguments.ts";
import type { Command, OptionSpec } from "./command.ts";

const WIDTH = 80;
const EXIT_TEXT =
  "0 done, 1 a fault of the program, 2 command line or configuration, 3 environment (no adapter, full disk), " +
  "4 missing or bad file, 5 numbers (NaN), 6 memory or lost device, 7 interrupted and saved";

/** `left` in a column, `right` wrapped beside it; on its own lines where left is too long. */
function twoColumns(rows: readonly (readonly [string, string])[], indent = 2): string[] {
  const widest = Math.min(30, Math.max(...rows.map(([left]) => left.length)));
  const start = indent + widest + 2;
  return rows.flatMap(([left, right]) => {
    const [first = "", ...others] = wrapText(right, WIDTH - start);
    const pad = " ".repeat(start);
    const head =
      left.length <= widest
        ? [`${" ".repeat(indent)}${left.padEnd(widest)}  ${first}`.trimEnd()]
        : [`${" ".repeat(indent)}${left}`, `${pad}${first}`];
    return [...head, ...others.map((line) => pad + line)];
  });
}

/** The first screen: what Longtail is, its commands, and where to go on. */
export function generalHelp(commands: readonly Command[]): string {
  return [
    ...wrapText(
      "Longtail aligns text-to-image diffusion models with the concepts that they under-represent, on any GPU.",
      WIDTH,
    ),
    "",
    "Usage: longtail <command> [words] [--flags]",
    "",
    "Commands:",
    ...twoColumns(commands.map(({ name, summary }) => [name, summary])),
    "",
    "Flags of every command:",
    ...twoColumns(COMMON_OPTIONS.map(optionRow)),
    "",
    "Start here:",
    ...twoColumns([
      ["longtail demo", "the embedded experiment, from nothing to a report"],
      ["longtail doctor", "what this machine offers, and how to fix what it lacks"],
      ["longtail help <command>", "one command in full"],
      ["longtail help config", "the sections of a configuration file"],
    ]),
    "",
    ...wrapText(`Exit codes: ${EXIT_TEXT}.`, WIDTH),
    "",
  ].join("\n");
}

const optionRow = ({ name, value, summary }: OptionSpec): [string, string] => [
  `--${name}${value ? `=${value}` : ""}`,
  summary,
];

/** `longtail help <command>`. */
export function commandHelp(command: Command): string {
  const lines = [`longtail ${command.name}: ${command.summary}`, ""];
  const usage = wrapText(`longtail ${command.name} ${command.usage}`, WIDTH - 7);
  lines.push(...usage.map((line, i) => (i ? `         ${line}` : `Usage: ${line}`)), "");
  if (command.description) lines.push(...wrapText(command.description, WIDTH), "");
  if (command.options.length) lines.push("Flags:", ...twoColumns(command.options.map(optionRow)), "");
  lines.push("Flags of every command:", ...twoColumns(COMMON_OPTIONS.map(optionRow)), "");
  if (command.configuration) {
    lines.push("Configuration keys (--section.key=value, or in the TOML file):");
    lines.push(...twoColumns(mainSections().map(({ name, description }) => [`${name}.*`, description])));
    lines.push("  Short names:");
    lines.push(
      ...twoColumns(
        Object.entries(ALIASES).map(([short, key]) => [`--${short}`, `--${key}`]),
        4,
      ),
    );
    lines.push("  longtail help config <section> explains each key.", "");
  }
  if (command.examples?.length) {
    lines.push(
      "Examples:",
      ...command.examples.flatMap(([line, what]) => [
        `  ${line}`,
        ...wrapText(what, WIDTH - 6).map((one) => `      ${one}`),
      ]),
      "",
    );
  }
  return lines.join("\n");
}

const mainSections = () => describeSections().filter(({ name }) => !name.endsWith("[]") && !name.includes("."));

/** `longtail help config`: the sections. */
export function configHelp(): string {
  return [
    ...wrapText(
      "A configuration is a TOML file of these sections. Every key has a default, so a file holds only what differs; " +
        '`preset = "embedded"` at its top builds on a preset.',
      WIDTH,
    ),
    "",
    ...twoColumns(
      describeSections().map(({ name, description }) => [
        name.endsWith("[]") ? `[[${name.slice(0, -2)}]]` : `[${name}]`,
        description,
      ]),
    ),
    "",
    "longtail help config <section> explains the keys of one section.",
    "",
  ].join("\n");
}

/** `longtail help config <section or key>`, or null where there is none of that name. */
export function sectionHelp(name: string): string | null {
  const plain = name.replace(/[[\]]/g, "");
  const sections = describeSections().filter((one) => one.name === plain || one.name === `${plain}[]`);
  if (sections.length) return sections.map(oneSection).join("\n");
  const option = describeSections()
    .flatMap(({ options }) => options)
    .find((one) => one.key.replace("[]", "") === plain);
  return option ? `${optionText(option).join("\n")}\n` : null;
}

function oneSection({ name, description, options }: SectionInfo): string {
  const title = name.endsWith("[]") ? `[[${name.slice(0, -2)}]]` : `[${name}]`;
  return [title, ...wrapText(description, WIDTH), "", ...options.flatMap((option) => [...optionText(option), ""])].join(
    "\n",
  );
}

function optionText(option: OptionInfo): string[] {
  const byDefault = option.hasDefault ? `default ${tomlValue(option.default)}` : "required";
  const facts = [option.accepted, option.unit ? `in ${option.unit}` : "", byDefault].filter(Boolean).join("; ");
  return [
    `  ${option.key.replace("[]", "")}`,
    ...wrapText(option.description, WIDTH - 6).map((line) => `      ${line}`),
    ...wrapText(facts, WIDTH - 6).map((line) => `      ${line}`),
  ];
}
