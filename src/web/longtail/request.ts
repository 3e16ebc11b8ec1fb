// What the long-tail mode asks the worker for: a configuration file on top of presets/embedded.toml with the picked items and
// numbers that fit the machine, and the command that repeats the run without a page. Pure.

export type Weights = "full" | "lora";
export type Pair = "mia" | "control-words" | "none";

export interface AlignForm {
  /** Which of the machine's three lengths; null takes its usual one. */
  length: 0 | 1 | 2 | null;
  weights: Weights;
  pair: Pair;
  seed: number;
  /** Empty: a name is made. */
  name: string;
}

export interface AlignPreset {
  id: "hardware" | "software";
  updates: readonly [number, number, number];
  usual: 0 | 1 | 2;
  batch: number;
  rolloutSteps: number;
  /** Euler steps and pictures of an evaluated item, and head items beside the picked ones. */
  drawSteps: number;
  pictures: number;
  headItems: number;
  warmup: number;
  /** Picks beyond which a run of usual length is too short to reach each of them some times. */
  comfortable: number;
}

/**
 * Hardware takes the measured recipe. A software adapter makes a few updates of two prompts: 15 GFLOP a prompt are ten seconds
 * at the 1.7 GFLOP/s of Chromium's own.
 */
export const ALIGN_PRESETS: Readonly<Record<AlignPreset["id"], AlignPreset>> = {
  hardware: {
    id: "hardware",
    updates: [40, 80, 160],
    usual: 1,
    batch: 4,
    rolloutSteps: 6,
    drawSteps: 6,
    pictures: 2,
    headItems: 24,
    warmup: 10,
    comfortable: 32,
  },
  software: {
    id: "software",
    updates: [4, 8, 16],
    usual: 1,
    batch: 2,
    rolloutSteps: 4,
    drawSteps: 4,
    pictures: 1,
    headItems: 4,
    warmup: 2,
    comfortable: 6,
  },
};

export const LENGTH_NAMES = ["Short", "Medium", "Long"] as const;

export const updatesOf = (form: AlignForm, preset: AlignPreset): number => preset.updates[form.length ?? preset.usual];

/** Updates between two measurements of judge and guard rails: eight in a run, where it is long enough. */
export const measureEvery = (updates: number): number => Math.max(2, Math.round(updates / 8));

/** Prompts of the run that go to each picked item, on average; a quarter goes to head items. */
export const draws = (updates: number, preset: AlignPreset, items: number): number =>
  (0.75 * updates * preset.batch) / Math.max(1, items);

/** A TOML basic string. */
export function tomlText(text: string): string {
  const control = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return `"${text.replace(/[\\"]/g, "\\$&").replace(/[\u0000-\u001f\u007f]/g, control)}"`;
}

/** What the form says differently from presets/embedded.toml, as sections of keys. */
function sections(form: AlignForm, preset: AlignPreset, items: readonly string[]): [string, [string, string][]][] {
  const updates = updatesOf(form, preset);
  const lora: [string, string][] = [
    ["kind", '"lora"'],
    ["rank", "16"],
    ["alpha", "16"],
    ["targets", '"diffusers"'],
  ];
  return [
    ...(form.weights === "lora" ? ([["adapter", lora]] as [string, [string, string][]][]) : []),
    ["schedule", [["warmup", String(preset.warmup)]]],
    ["train", [["seed", String(form.seed)]]],
    [
      "eval",
      [
        ["head_items", String(preset.headItems)],
        ["pictures", String(preset.pictures)],
        ["steps", String(preset.drawSteps)],
      ],
    ],
    [
      "align",
      [
        ["items", `[${items.map(tomlText).join(", ")}]`],
        ["steps", String(updates)],
        ["batch", String(preset.batch)],
        ["rollout_steps", String(preset.rolloutSteps)],
        ["pair", tomlText(form.pair)],
      ],
    ],
    [
      "align.guard",
      [
        ["every", String(measureEvery(updates))],
        // Every picked item, so that each strip has pictures of the way.
        ["items", String(Math.max(2, items.length))],
        ["pictures", "true"],
      ],
    ],
  ];
}

/** The run's configuration file; `npx longtail align config.toml` repeats it. */
export function alignToml(form: AlignForm, preset: AlignPreset, items: readonly string[]): string {
  const lines = ['preset = "embedded"'];
  for (const [section, keys] of sections(form, preset, items))
    lines.push("", `[${section}]`, ...keys.map(([key, value]) => `${key} = ${value}`));
  return `${lines.join("\n")}\n`;
}

/** A word of a POSIX shell. */
const shellWord = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);

/** The command that repeats the run without a page. */
export function alignCommand(form: AlignForm, preset: AlignPreset, items: readonly string[], name: string): string {
  const words = ["npx", "longtail", "align", "embedded"];
  for (const [section, keys] of sections(form, preset, items))
    for (const [key, value] of keys)
      words.push(shellWord(`--${section}.${key}=${value.startsWith('"') ? JSON.parse(value) : value}`));
  if (name) words.push(shellWord(`--name=${name}`));
  return words.join(" ");
}

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/i;

/** Why a run cannot be started, or null. */
export function startProblem(form: AlignForm, picked: number): string | null {
  if (picked === 0) return "Pick at least one tail concept on the map or in the list.";
  if (form.name !== "" && !NAME.test(form.name))
    return "A name has letters, digits, dots, dashes and underscores only, and at most 63 of them.";
  if (!Number.isInteger(form.seed) || form.seed < 0 || form.seed >= 2 ** 31)
    return "The seed is a whole number from 0 to 2147483647.";
  return null;
}

/** A name that no run in `taken` has. */
export function freeName(form: AlignForm, items: readonly string[], taken: Iterable<string>): string {
  const used = new Set(taken);
  const plain =
    items.length === 1
      ? items[0]!
          .normalize("NFD")
          .replace(/\p{Mn}/gu, "")
          .replace(/[^a-z0-9]+/gi, "-")
      : `tail-${items.length}`;
  const base = form.name || plain.replace(/^-+|-+$/g, "").slice(0, 40) || "tail";
  if (!used.has(base)) return base;
  for (let n = 2; ; n++) if (!used.has(`${base}-${n}`)) return `${base}-${n}`;
}

/** The items that such a configuration aligns; none where it does not say. */
export function alignedNames(toml: string): string[] {
  const list = /\n\[align\]\n(?:[^[\n].*\n)*?items = (\[.*\])\n/.exec(`\n${toml}`)?.[1];
  if (!list) return [];
  try {
    // A list of basic strings without control characters is JSON too.
    return (JSON.parse(list) as unknown[]).filter((name) => typeof name === "string");
  } catch {
    return [];
  }
}
