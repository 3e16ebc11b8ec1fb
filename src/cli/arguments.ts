// Reads the command line: one command, its words and flags, and dotted configuration keys (`--align.steps=5`). A thin
// layer of our own, because the keys and their kinds come from the configuration schema.

import { LongtailError, nearestName } from "../base/errors.ts";
import { ALIASES, fullKey } from "../runs/config/load.ts";
import { unknownKey } from "../runs/config/problems.ts";
import { describeSections, findOption } from "../runs/config/schema.ts";
import type { Command, OptionSpec, ParsedArguments } from "./command.ts";

/** Flags that every command knows. */
export const COMMON_OPTIONS: readonly OptionSpec[] = [
  { name: "json", summary: "print events and the result as JSON lines, for machines" },
  { name: "quiet", summary: "print warnings, errors and the result alone" },
  { name: "no-color", summary: "print without colours (as NO_COLOR=1 does)" },
  { name: "help", summary: "print this help" },
];

const SHORT: Readonly<Record<string, string>> = { h: "help", q: "quiet", V: "version" };

/**
 * Parses the words after the program's name.
 * Throws E-ARG-001 (unknown command), 002 (unknown flag), 003 (value missing), 004 (too many or too few words),
 * 005 (a switch was given a value) and E-CFG-001 for a configuration key that does not exist.
 */
export function parseArguments(argv: readonly string[], commands: readonly Command[]): ParsedArguments {
  const parsed: ParsedArguments = {
    command: "help",
    positionals: [],
    flags: {},
    overrides: [],
    help: false,
    json: false,
    quiet: false,
    color: true,
  };
  const first = argv.findIndex((word) => !word.startsWith("-"));
  const name = first < 0 ? null : argv[first]!;
  const command = name === null ? null : (commands.find((one) => one.name === name) ?? null);
  if (name !== null && !command) throw unknownCommand(name, commands);
  if (command) parsed.command = command.name;
  const rest = argv.filter((_, i) => i !== first);

  for (let i = 0; i < rest.length; i++) {
    const word = rest[i]!;
    if (word === "--") {
      parsed.positionals.push(...rest.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-" || isNumber(word)) {
      parsed.positionals.push(word);
      continue;
    }
    i += readFlag(word, rest[i + 1], command, parsed);
  }
  if (command && !parsed.help) checkPositionals(command, parsed.positionals);
  return parsed;
}

const isNumber = (word: string) => /^-(\d|\.\d)/.test(word);

function unknownCommand(name: string, commands: readonly Command[]): LongtailError {
  const near = nearestName(
    name,
    commands.map((one) => one.name),
  );
  return new LongtailError("E-ARG-001", {
    where: name,
    what: "there is no such command",
    fix: near ? `did you mean longtail ${near}?` : "longtail --help lists the commands",
  });
}

/** Reads one flag; returns how many of the following words it took. */
function readFlag(word: string, next: string | undefined, command: Command | null, parsed: ParsedArguments): number {
  const cut = word.indexOf("=");
  const spelled = cut < 0 ? word : word.slice(0, cut);
  const given = cut < 0 ? undefined : word.slice(cut + 1);
  const bare = spelled.replace(/^-+/, "");
  const name = spelled.startsWith("--") ? bare : (SHORT[bare] ?? bare);
  if (readCommon(name, spelled, given, parsed)) return 0;

  const option = command?.options.find((one) => one.name === name);
  if (option) {
    if (option.value === undefined) {
      if (given !== undefined) throw notASwitchValue(spelled);
      parsed.flags[name] = true;
      return 0;
    }
    const value = given ?? following(next);
    if (value === undefined) throw missingValue(spelled, option.value);
    parsed.flags[name] = value;
    return given === undefined ? 1 : 0;
  }
  const negated = name.startsWith("no-") ? name.slice(3) : null;
  const short = negated ?? name;
  const key = (command?.aliases && Object.hasOwn(command.aliases, short) ? command.aliases[short] : short) as string;
  const isKey = key.includes(".") || Object.hasOwn(ALIASES, key);
  if (!command?.configuration || !isKey) throw unknownFlag(spelled, command);
  return readKey(key, negated !== null, spelled, given, next, parsed);
}

function readCommon(name: string, spelled: string, given: string | undefined, parsed: ParsedArguments): boolean {
  if (!["help", "json", "quiet", "no-color", "version"].includes(name)) return false;
  if (given !== undefined) throw notASwitchValue(spelled);
  if (name === "help") parsed.help = true;
  if (name === "json") parsed.json = true;
  if (name === "quiet") parsed.quiet = true;
  if (name === "no-color") parsed.color = false;
  if (name === "version") parsed.command = "version";
  return true;
}

function readKey(
  key: string,
  negated: boolean,
  spelled: string,
  given: string | undefined,
  next: string | undefined,
  parsed: ParsedArguments,
): number {
  const option = findOption(fullKey(key));
  if (!option) throw unknownKey(fullKey(key), "command line");
  if (negated) {
    if (!option.boolean) throw unknownKey(`no-${key}`, "command line");
    if (given !== undefined) throw notASwitchValue(spelled);
    parsed.overrides.push({ key, value: false });
    return 0;
  }
  if (given !== undefined) {
    parsed.overrides.push({ key, value: given });
    return 0;
  }
  if (option.boolean && next !== "true" && next !== "false") {
    parsed.overrides.push({ key, value: true });
    return 0;
  }
  const value = following(next);
  if (value === undefined) throw missingValue(spelled, option.accepted);
  parsed.overrides.push({ key, value });
  return 1;
}

const following = (next: string | undefined) =>
  next === undefined || (next.startsWith("-") && next !== "-" && !isNumber(next)) ? undefined : next;

const missingValue = (spelled: string, accepted: string) =>
  new LongtailError("E-ARG-003", {
    where: spelled,
    what: "the value is missing",
    fix: `write ${spelled}=… with ${accepted}`,
  });

const notASwitchValue = (spelled: string) =>
  new LongtailError("E-ARG-005", { where: spelled, what: "this flag takes no value", fix: `write ${spelled} alone` });

function unknownFlag(spelled: string, command: Command | null): LongtailError {
  const bare = spelled.replace(/^-+/, "");
  const known = [...COMMON_OPTIONS.map(({ name }) => name), ...(command?.options.map(({ name }) => name) ?? [])];
  if (command?.configuration) known.push(...Object.keys(ALIASES));
  const near = nearestName(bare, known);
  // `--lr` is not a flag, but a key of that name may be what is wanted.
  const key = command?.configuration
    ? describeSections()
        .flatMap(({ options }) => options.map((one) => one.key))
        .find((one) => one.endsWith(`.${bare}`))
    : undefined;
  const help = command ? `longtail ${command.name} --help` : "longtail --help";
  return new LongtailError("E-ARG-002", {
    where: spelled,
    what: command ? `longtail ${command.name} has no such flag` : "there is no such flag",
    fix: key ? `did you mean --${key}?` : near ? `did you mean --${near}?` : `${help} lists the flags`,
  });
}

function checkPositionals(command: Command, words: readonly string[]): void {
  const [least, most] = command.positionals ?? [0, 0];
  if (words.length > most) {
    throw new LongtailError("E-ARG-004", {
      where: words[most]!,
      what: `longtail ${command.name} takes ${most === 0 ? "no words" : most === 1 ? "one word" : `at most ${most} words`} after it`,
      fix: `usage: longtail ${command.name} ${command.usage}`,
    });
  }
  if (words.length < least) {
    throw new LongtailError("E-ARG-004", {
      where: command.name,
      what: "something is missing after the command",
      fix: `usage: longtail ${command.name} ${command.usage}`,
    });
  }
}
