// What the form of the Train mode holds, and what becomes of it: the TOML text of a run that `longtail train` accepts, the
// command that repeats the run without a page, and the part of the page's address that carries the settings to somebody else.

import { nearestName } from "../base/errors.ts";

/** Pictures to learn from: a selection of the embedded ones, or a set of the user's own in the browser's storage. */
export interface PictureChoice {
  /** For people, and the name in an address: `rare items`. */
  label: string;
  /** `embedded`, or `pictures/<set>`. */
  path: string;
  /** Of "embedded"; empty for own pictures. */
  items: string[];
  styles: string[];
  /** How many pictures it has. */
  pictures: number;
}

export interface TrainSettings {
  set: PictureChoice | null;
  /** A word of one's own for what the pictures show; empty for none. */
  trigger: string;
  /** 0 quick to 4 careful. */
  pace: number;
  /** Null takes what the pace and the adapter suggest. */
  updates: number | null;
  batch: number | null;
  lr: number | null;
  rank: number;
  seed: number;
  /** Name of the run; empty takes one from the set and the time. */
  name: string;
}

export const DEFAULT_SETTINGS: Readonly<TrainSettings> = {
  set: null,
  trigger: "",
  pace: 2,
  updates: null,
  batch: null,
  lr: null,
  rank: 16,
  seed: 0,
  name: "",
};

/** What runs on a class of adapters. The numbers of updates belong to the five paces. */
export interface MachinePreset {
  id: "hardware" | "software";
  batch: number;
  updates: readonly [number, number, number, number, number];
  /** Prompts of a sampling, and Euler steps of each picture. */
  samples: number;
  sampleSteps: number;
  /** Updates between two checkpoints: what a crash of the tab costs at most. */
  saveEvery: number;
  warmup: number;
}

export const PRESETS: Readonly<Record<MachinePreset["id"], MachinePreset>> = {
  hardware: {
    id: "hardware",
    batch: 8,
    updates: [60, 120, 200, 400, 800],
    samples: 8,
    sampleSteps: 12,
    saveEvery: 25,
    warmup: 10,
  },
  software: {
    id: "software",
    batch: 2,
    updates: [16, 24, 40, 80, 160],
    samples: 4,
    sampleSteps: 8,
    saveEvery: 10,
    warmup: 4,
  },
};

export const PACES = ["Quick", "Short", "Balanced", "Thorough", "Careful"] as const;

/** The rate of presets/lora.toml, for the small model. */
export const DEFAULT_RATE = 1e-3;

/** Pictures without which a LoRA learns next to nothing. */
export const LEAST_PICTURES = 5;

/** What the numbers mean once pace and adapter have filled in what was left open. */
export interface Effective {
  updates: number;
  batch: number;
  lr: number;
  rank: number;
  seed: number;
  /** Updates between two samplings and two measurements of the validation loss. */
  every: number;
}

export function effective(settings: TrainSettings, preset: MachinePreset): Effective {
  const pace = Math.min(4, Math.max(0, Math.round(settings.pace))) as 0 | 1 | 2 | 3 | 4;
  const own = (key: "updates" | "batch" | "lr" | "rank" | "seed") =>
    FIELDS[key].check(settings[key]) === null ? settings[key] : null;
  const updates = own("updates") ?? preset.updates[pace];
  return {
    updates,
    batch: own("batch") ?? preset.batch,
    lr: own("lr") ?? DEFAULT_RATE,
    rank: own("rank") ?? DEFAULT_SETTINGS.rank,
    seed: own("seed") ?? DEFAULT_SETTINGS.seed,
    every: Math.max(4, Math.ceil(updates / 5)),
  };
}

/** Why a run cannot start with these settings, or null. */
export function startProblem(settings: TrainSettings): string | null {
  if (!settings.set) return "pick pictures first";
  const missing = LEAST_PICTURES - settings.set.pictures;
  if (missing > 0) return `add ${missing} more ${missing === 1 ? "picture" : "pictures"}`;
  for (const [name, field] of Object.entries(FIELDS)) {
    const value = settings[name as keyof typeof FIELDS];
    if (value !== null && field.check(value) !== null) return `${field.label}: ${field.check(value)}`;
  }
  return null;
}

interface Field {
  label: string;
  /** What is wrong with a value, or null. */
  check(value: unknown): string | null;
}

function numberField(label: string, low: number, high: number, whole = true): Field {
  const text = whole ? "a whole number" : "a number";
  const check = (value: unknown) =>
    typeof value === "number" && value >= low && value <= high && (!whole || Number.isInteger(value))
      ? null
      : `it must be ${text} from ${low} to ${high}`;
  return { label, check };
}

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/i;

/** Settings with a range of their own; the form shows the messages under the inputs. */
export const FIELDS = {
  pace: numberField("Pace", 0, 4),
  updates: numberField("Updates", 1, 20000),
  batch: numberField("Batch", 1, 64),
  lr: numberField("Learning rate", 1e-6, 1, false),
  rank: numberField("Rank", 1, 128),
  seed: numberField("Seed", 0, 2 ** 31 - 1),
  name: {
    label: "Name",
    check: (value: unknown) =>
      value === "" || (typeof value === "string" && NAME.test(value) && !value.endsWith("."))
        ? null
        : "letters, digits, dots, dashes and underscores only, at most 63",
  } satisfies Field,
};

/** A TOML basic string. */
export function tomlString(text: string): string {
  const control = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const escaped = text.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
  return `"${escaped.replace(/[\u0000-\u001f\u007f]/g, control)}"`;
}

const tomlList = (texts: readonly string[]) => `[${texts.map(tomlString).join(", ")}]`;

/** A number as TOML and the command line read it: 0.001, 1e-5. */
const tomlNumber = (value: number) => (Number.isInteger(value) ? String(value) : String(value).replace(/^\./, "0."));

/** What the page's settings say differently from presets/lora.toml, as sections of keys. */
function sections(settings: TrainSettings, preset: MachinePreset): [string, [string, string][]][] {
  const { updates, batch, lr, rank, seed, every } = effective(settings, preset);
  const own = settings.set !== null && settings.set.path !== "embedded";
  const trigger = settings.trigger.trim();
  const warmup = Math.min(preset.warmup, Math.max(1, Math.floor(updates / 4)));
  const set: [string, string][] = settings.set
    ? [
        ["path", tomlString(settings.set.path)],
        ...(settings.set.items.length > 0 ? ([["items", tomlList(settings.set.items)]] as [string, string][]) : []),
        ...(settings.set.styles.length > 0 ? ([["styles", tomlList(settings.set.styles)]] as [string, string][]) : []),
      ]
    : [];
  const data: [string, string][] = [
    ...(trigger ? ([["trigger", tomlString(trigger)]] as [string, string][]) : []),
    // Every picture becomes a square of the model's size: one size is one set of kernels to compile.
    ...(own
      ? ([
          ["buckets", "false"],
          ["upscale", "true"],
        ] as [string, string][])
      : []),
  ];
  return [
    ["data", data],
    ["[data.sets]", set],
    [
      "adapter",
      [
        ["rank", String(rank)],
        ["alpha", String(rank)],
      ],
    ],
    ["optim", [["lr", tomlNumber(lr)]]],
    ["schedule", [["warmup", String(warmup)]]],
    [
      "train",
      [
        ["steps", String(updates)],
        ["batch", String(batch)],
        ["seed", String(seed)],
        ["validate_every", String(every)],
        ["validation_pictures", String(Math.min(16, preset.batch * 2))],
      ],
    ],
    [
      "sample",
      [
        ["items", String(preset.samples)],
        ["steps", String(preset.sampleSteps)],
        ["every", String(every)],
      ],
    ],
    ["save", [["every", String(preset.saveEvery)]]],
  ];
}

/** The configuration file of the run: `npx longtail train config.toml` repeats it. */
export function trainToml(settings: TrainSettings, preset: MachinePreset): string {
  const lines = ['preset = "lora"'];
  for (const [section, keys] of sections(settings, preset)) {
    if (keys.length === 0) continue;
    lines.push("", `[${section}]`, ...keys.map(([key, value]) => `${key} = ${value}`));
  }
  return `${lines.join("\n")}\n`;
}

/**
 * The form of a run that this page configured, from the run's config.toml; null where it is another's. The run's name stands for
 * that of its pictures, which no configuration holds.
 */
export function settingsOfToml(toml: string, name: string, preset: MachinePreset): TrainSettings | null {
  const values = new Map<string, unknown>();
  let section = "";
  for (const line of toml.split("\n")) {
    section = /^\[+([\w.]+)\]+$/.exec(line)?.[1] ?? section;
    const [, key, text] = /^(\w+) = (.+)$/s.exec(line) ?? [];
    try {
      // What trainToml writes, numbers, basic strings and lists of them, is JSON too.
      if (key && text) values.set(`${section}.${key}`, JSON.parse(text));
    } catch {
      return null;
    }
  }
  const number = (key: string) => (typeof values.get(key) === "number" ? (values.get(key) as number) : null);
  const texts = (key: string) => (values.get(key) as string[] | undefined) ?? [];
  const [path, updates, rank] = [values.get("data.sets.path"), number("train.steps"), number("adapter.rank")];
  if (typeof path !== "string" || updates === null || rank === null) return null;
  const [items, styles] = [texts("data.sets.items"), texts("data.sets.styles")];
  const pace = preset.updates.indexOf(updates);
  const unlessUsual = (value: number | null, usual: number) => (value === usual ? null : value);
  return {
    set: { label: name, path, items, styles, pictures: items.length * Math.max(1, styles.length) },
    trigger: String(values.get("data.trigger") ?? ""),
    pace: pace < 0 ? DEFAULT_SETTINGS.pace : pace,
    updates: pace < 0 ? updates : null,
    batch: unlessUsual(number("train.batch"), preset.batch),
    lr: unlessUsual(number("optim.lr"), DEFAULT_RATE),
    rank,
    seed: number("train.seed") ?? DEFAULT_SETTINGS.seed,
    name: "",
  };
}

/** A word of a POSIX shell. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;

/**
 * The command that repeats the run without a page. For the user's own pictures it names a folder that they have to put in
 * place: the page cannot know where the files came from.
 */
export function trainCommand(settings: TrainSettings, preset: MachinePreset, name = settings.name): string {
  const words = ["npx", "longtail", "train", "lora"];
  for (const [section, keys] of sections(settings, preset)) {
    for (const [key, value] of keys) {
      if (section === "[data.sets]") {
        if (key === "path" && settings.set?.path === "embedded") continue;
        const own = key === "path" && settings.set !== null;
        words.push(own ? "--data=./pictures" : shellWord(`--data.sets.0.${key}=${value}`));
      } else words.push(shellWord(`--${section}.${key}=${value.startsWith('"') ? JSON.parse(value) : value}`));
    }
  }
  if (name) words.push(shellWord(`--name=${name}`));
  return words.join(" ");
}

/** A name that no run in `taken` has: the set's label and a number. */
export function freeName(settings: TrainSettings, taken: Iterable<string>): string {
  const used = new Set(taken);
  const plain = (settings.set?.label ?? "run")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "");
  const base = settings.name || plain.slice(0, 40) || "run";
  if (!used.has(base)) return base;
  for (let n = 2; ; n++) if (!used.has(`${base}-${n}`)) return `${base}-${n}`;
}

/** Keys of the page's address; own pictures stay at home, so only embedded ones travel. */
const HASH_KEYS = ["set", "items", "styles", "trigger", "pace", "updates", "batch", "lr", "rank", "seed", "name"];
const NUMBER_KEYS = ["pace", "updates", "batch", "lr", "rank", "seed"] as const;

/** The settings that differ from the defaults, as `key=value&…` without `#`. */
export function settingsToHash(settings: TrainSettings): string {
  const query = new URLSearchParams();
  if (settings.set?.path === "embedded") {
    query.set("set", settings.set.label);
    if (settings.set.items.length > 0) query.set("items", settings.set.items.join(","));
    if (settings.set.styles.length > 0) query.set("styles", settings.set.styles.join(","));
  }
  for (const key of [...NUMBER_KEYS, "trigger", "name"] as const) {
    const value = settings[key];
    const isGood = !(key in FIELDS) || (FIELDS as Record<string, Field>)[key]!.check(value) === null;
    // The trigger word of own pictures stays at home with them.
    if (key === "trigger" && settings.set !== null && settings.set.path !== "embedded") continue;
    if (value !== null && value !== DEFAULT_SETTINGS[key] && isGood) query.set(key, String(value));
  }
  // Commas are what separates names here; written as they are they can be read.
  return query.toString().replaceAll("%2C", ",");
}

export interface HashResult {
  settings: TrainSettings;
  /** What is wrong, one sentence each; the settings are the defaults where there is anything. */
  problems: string[];
}

/** Reads `key=value&…`. An unknown key or a value out of range refuses the whole link, as a configuration file would be. */
export function settingsFromHash(hash: string): HashResult {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const settings: TrainSettings = structuredClone(DEFAULT_SETTINGS);
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const [key, value] of query) {
    if (!HASH_KEYS.includes(key)) {
      const near = nearestName(key, HASH_KEYS);
      problems.push(
        `“${key}” is not a setting${near ? `; did you mean “${near}”?` : `; the settings are ${HASH_KEYS.join(", ")}`}`,
      );
    } else if (seen.has(key)) problems.push(`“${key}” is there twice`);
    seen.add(key);
    const field = (FIELDS as Record<string, Field>)[key];
    const parsed = (NUMBER_KEYS as readonly string[]).includes(key) ? Number(value === "" ? Number.NaN : value) : value;
    const wrong = field?.check(parsed) ?? null;
    if (wrong) problems.push(`“${key}=${value}”: ${wrong}`);
    else if (field) Object.assign(settings, { [key]: parsed });
  }
  settings.trigger = query.get("trigger") ?? "";
  const names = (key: string) => (query.get(key) ?? "").split(",").filter((name) => name !== "");
  const label = query.get("set");
  if (label !== null) {
    const items = names("items");
    const styles = names("styles");
    settings.set = { label, path: "embedded", items, styles, pictures: items.length * Math.max(1, styles.length) };
    if (items.length === 0) problems.push("“set” needs “items”, the names of its pictures");
  } else if (query.has("items") || query.has("styles")) problems.push("“items” and “styles” need “set”");
  return problems.length > 0 ? { settings: structuredClone(DEFAULT_SETTINGS), problems } : { settings, problems };
}
