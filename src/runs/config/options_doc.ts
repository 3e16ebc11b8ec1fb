// The option reference, docs/options.md, written from the schema.

import { ALIASES } from "./load.ts";
import { describeSections, type OptionInfo } from "./schema.ts";
import { tomlValue } from "./toml.ts";

const cell = (text: string) => text.replace(/\|/g, "\\|").replace(/</g, "&lt;");

function row(option: OptionInfo, section: string): string {
  const value = option.hasDefault ? `\`${tomlValue(option.default)}\`` : "required";
  return `| \`${option.key.slice(section.length + 1)}\` | ${value} | ${cell(option.accepted)} | ${option.unit ?? ""} | ${cell(option.description)} |`;
}

/** The whole of docs/options.md. */
export function optionsMarkdown(presets: readonly { name: string; text: string }[]): string {
  const lines = [
    "# Configuration",
    "",
    "A run is described by a TOML file. Every key has a default, so a file holds only what differs from it:",
    "",
    "```toml",
    'preset = "embedded"   # optional: build on a preset',
    "",
    "[align]",
    "steps = 80",
    "```",
    "",
    "Later layers win: defaults, preset, file, command line. Any key can be set on the command line, as `--align.steps=80`, " +
      "`--align.steps 80`, `--align.offline`, `--no-align.same_noise`, `--align.discount_pos=1,1` or `--align.rewards.0.weight=2`. " +
      `Short names: ${Object.entries(ALIASES)
        .map(([short, key]) => `\`--${short}\` for \`--${key}\``)
        .join(", ")}. In \`longtail train\` and \`longtail cache\`, \`--steps\` means \`--train.steps\`.`,
    "",
    "An unknown key is refused with the nearest name that exists. The run folder's `config.resolved.toml` holds every value " +
      "with its origin and can be used as a file again.",
    "",
    "This page is written from the schema (`deno run -A --no-check scripts/generate_docs.ts`); do not edit it by hand.",
    "",
    "## Presets",
    "",
    "| preset | what it is |",
    "|---|---|",
    ...presets.map(({ name, text }) => `| \`${name}\` | ${cell(leadingComment(text))} |`),
  ];
  for (const { name, description, options } of describeSections()) {
    lines.push("", `## ${name.endsWith("[]") ? `[[${name.slice(0, -2)}]]` : `[${name}]`}`, "", description, "");
    lines.push(
      "| key | default | accepts | unit | meaning |",
      "|---|---|---|---|---|",
      ...options.map((option) => row(option, name)),
    );
  }
  return `${lines.join("\n")}\n`;
}

/** The comment that a preset opens with, as one line. */
function leadingComment(text: string): string {
  const lines: string[] = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith("#")) break;
    lines.push(line.replace(/^#\s?/, ""));
  }
  return lines.join(" ");
}
