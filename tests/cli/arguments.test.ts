// The command line's words and flags, and the help made from commands and schema.
import { describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { parseArguments } from "../../src/cli/arguments.ts";
import type { Command } from "../../src/cli/command.ts";
import { helpText } from "../../src/cli/commands/help.ts";
import { loadCommands } from "../../src/cli/commands.ts";
import { describeSections } from "../../src/runs/config/schema.ts";

const none = () => Promise.resolve(0);
const commands: Command[] = [
  {
    name: "align",
    summary: "align",
    usage: "[preset | file.toml]",
    positionals: [0, 1],
    configuration: true,
    run: none,
    options: [
      { name: "yes", summary: "do not ask" },
      { name: "out", value: "FILE", summary: "write there" },
    ],
    examples: [["longtail align embedded", "the embedded experiment"]],
  },
  { name: "report", summary: "report", usage: "RUN", positionals: [1, 1], options: [], run: none },
  { name: "help", summary: "help", usage: "", positionals: [0, 2], options: [], run: none },
  { name: "version", summary: "version", usage: "", options: [], run: none },
];
const parse = (...argv: string[]) => parseArguments(argv, commands);

function failure(...argv: string[]): LongtailError {
  try {
    parse(...argv);
  } catch (error) {
    expect(error).toBeInstanceOf(LongtailError);
    expect((error as LongtailError).exitCode).toBe(2);
    return error as LongtailError;
  }
  throw new Error(`${argv.join(" ")} was accepted`);
}

describe("arguments", () => {
  it("separates command, words, flags and configuration keys", () => {
    expect(
      parse(
        "align",
        "my.toml",
        "--align.steps=5",
        "--align.batch",
        "2",
        "--yes",
        "--out",
        "x.html",
        "--json",
        "-q",
        "--no-color",
      ),
    ).toEqual({
      command: "align",
      positionals: ["my.toml"],
      flags: { yes: true, out: "x.html" },
      overrides: [
        { key: "align.steps", value: "5" },
        { key: "align.batch", value: "2" },
      ],
      help: false,
      json: true,
      quiet: true,
      color: false,
    });
  });

  it("takes switches of the configuration with, without and against a value", () => {
    expect(parse("align", "--align.offline", "my.toml").positionals).toEqual(["my.toml"]);
    expect(parse("align", "--align.offline").overrides).toEqual([{ key: "align.offline", value: true }]);
    expect(parse("align", "--align.offline", "false").overrides).toEqual([{ key: "align.offline", value: "false" }]);
    expect(parse("align", "--no-align.same_noise").overrides).toEqual([{ key: "align.same_noise", value: false }]);
  });

  it("knows the short names, negative numbers, and that nothing after -- is a flag", () => {
    expect(parse("align", "--adapter=lora", "--gpu", "deno").overrides).toEqual([
      { key: "adapter", value: "lora" },
      { key: "gpu", value: "deno" },
    ]);
    expect(parse("align", "--align.pair_cosine_warning", "-0.5").overrides).toEqual([
      { key: "align.pair_cosine_warning", value: "-0.5" },
    ]);
    expect(parse("align", "--", "--odd.toml").positionals).toEqual(["--odd.toml"]);
  });

  it("shows help without a command and for -h anywhere", () => {
    expect(parse().command).toBe("help");
    expect(parse("--help").command).toBe("help");
    expect(parse("report", "-h")).toMatchObject({ command: "report", help: true });
    expect(parse("--version").command).toBe("version");
  });

  it.each([
    [["algin"], "E-ARG-001", "did you mean longtail align?"],
    [["nothinglike"], "E-ARG-001", "longtail --help"],
    [["align", "--jsno"], "E-ARG-002", "did you mean --json?"],
    [["align", "--yess"], "E-ARG-002", "did you mean --yes?"],
    [["align", "--lr=1"], "E-ARG-002", "did you mean --optim.lr?"],
    [["report", "x", "--align.steps=1"], "E-ARG-002", "longtail report --help"],
    [["align", "--out"], "E-ARG-003", "FILE"],
    [["align", "--align.steps", "--json"], "E-ARG-003", "whole number"],
    [["align", "a", "b"], "E-ARG-004", "takes one word"],
    [["report"], "E-ARG-004", "usage: longtail report RUN"],
    [["align", "--yes=1"], "E-ARG-005", "--yes"],
    [["align", "--align.stesp=1"], "E-CFG-001", "did you mean align.steps?"],
    [["align", "--no-align.steps"], "E-CFG-001", "align"],
  ])("%j ends in %s", (argv, code, part) => {
    const error = failure(...argv);
    expect(error.code).toBe(code);
    expect(error.message).toContain(part);
    expect(error.message).toContain("Fix: ");
  });
});

describe("help", () => {
  it("fits 80 columns everywhere and names every key", async () => {
    const real = await loadCommands();
    const texts = [
      helpText(real),
      helpText(real, "config"),
      ...real.map(({ name }) => helpText(real, name)),
      helpText(commands, "align"),
    ];
    const sections = describeSections().map(({ name }) => helpText(real, "config", name));
    for (const text of [...texts, ...sections])
      for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
    const all = sections.join("\n");
    for (const { options } of describeSections())
      for (const { key } of options) expect(all).toContain(key.replace("[]", ""));
  });

  it("explains one key and hints at a misspelt topic", () => {
    expect(helpText(commands, "align.discount_pos")).toContain("default [1, 1]");
    expect(() => helpText(commands, "algin")).toThrow(/E-ARG-006 .*did you mean align\?/);
    expect(() => helpText(commands, "config", "optimm")).toThrow(/did you mean optim\?/);
  });
});
