// The subcommands of `longtail lora`: their help, the flags they take, and how their outcome is printed.

import { LongtailError, nearestName } from "../../base/errors.ts";
import { bytes, compact, grouped } from "../../evaluation/format.ts";
import type { LoraDtype } from "../../formats/lora.ts";
import { wrapText } from "../../runs/config/toml.ts";
import type { CommandContext } from "../command.ts";
import { renderTable } from "../table.ts";
import { findBase } from "./base.ts";
import { convertLora, WRITTEN_STYLES } from "./convert.ts";
import { inferBase } from "./infer_base.ts";
import { inspectLora } from "./inspect.ts";
import { mergeLoras } from "./merge.ts";
import { diffLoras, resizeLora } from "./resize.ts";
import { verifyLora } from "./verify.ts";

export interface Subcommand {
  name: string;
  summary: string;
  usage: string;
  /** Paragraphs for help. */
  description: string;
  examples: readonly (readonly [string, string])[];
  /** Fewest and most files. */
  words: readonly [number, number];
  flags: readonly string[];
  run(context: CommandContext, words: readonly string[]): Promise<number>;
}

export const SUBCOMMANDS: readonly Subcommand[] = [
  {
    name: "inspect",
    summary: "style, kind, layers with rank, alpha and norm of the change, and metadata",
    usage: "FILE",
    description:
      "Reads the file whatever program wrote it. The norm is the Frobenius norm of what a layer adds to its weight at strength 1.",
    examples: [["longtail lora inspect style.safetensors", "what is in the file"]],
    words: [1, 1],
    flags: [],
    run: inspect,
  },
  {
    name: "verify",
    summary: "every key and shape against a base model, and which programs load the file",
    usage: "FILE [--base=MODEL]",
    description:
      "Names each fault in words: a missing partner, another rank or width, fused matrices, unknown keys with the nearest name, " +
      "values that are not finite, layers that are all zero. The base is flux-dev, flux-schnell, flux2-klein-4b, flux2-klein-9b, " +
      "flux2-dev, embedded, a pipeline's folder or a transformer file; without --base it is taken from the file's width and metadata. Exit code 0 without errors, 4 with one.",
    examples: [["longtail lora verify style.safetensors --base=flux-schnell", "does it fit that model?"]],
    words: [1, 1],
    flags: ["base"],
    run: verify,
  },
  {
    name: "convert",
    summary: "another style or number format, with what was lost",
    usage: "FILE --output=FILE [--style=kohya] [--dtype=bf16] [--scales=PLACE]",
    description:
      "Styles: diffusers, peft (writes adapter_config.json as well), kohya (fused matrices), onetrainer, and lycoris for a LoKr. " +
      "Without --style or --dtype those of the file stay. --scales says where diffusers' files keep alpha / rank: metadata (which " +
      "ComfyUI does not read), tensors, or folded into the values; by default the place that every loader understands.",
    examples: [["longtail lora convert a.safetensors --style=kohya --output=b.safetensors", "for sd-scripts"]],
    words: [1, 1],
    flags: ["style", "dtype", "scales", "output"],
    run: convert,
  },
  {
    name: "merge",
    summary: "adapters into a transformer file, tensor by tensor",
    usage: "FILE [FILE ...] --base=MODEL --output=FILE [--strength=0.8,0.5]",
    description:
      "Adds LoRA, DoRA or LoKr changes to the weights of a folder or file in either layout. The number format of the base " +
      "stays; sums are made in double precision and rounded once. One tensor is in memory at a time.",
    examples: [["longtail lora merge a.safetensors --base=flux --output=b.safetensors", "two at once"]],
    words: [1, 64],
    flags: ["base", "strength", "output"],
    run: merge,
  },
  {
    name: "resize",
    summary: "another rank by singular values, with the energy that is kept",
    usage: "FILE --output=FILE (--rank=N | --energy=SHARE)",
    description:
      "With --rank every layer gets that rank (a smaller one stays), with --energy each layer gets the least rank that keeps this " +
      "share of its ‖ΔW‖². alpha / rank stays as it was.",
    examples: [["longtail lora resize style.safetensors --rank=8 --output=small.safetensors", "a smaller file"]],
    words: [1, 1],
    flags: ["rank", "energy", "output"],
    run: resize,
  },
  {
    name: "diff",
    summary: "how far two adapters are apart, layer by layer",
    usage: "FILE FILE",
    description:
      "Per layer the norms of both changes, the norm of their difference and the cosine of the angle between them.",
    examples: [["longtail lora diff before.safetensors after.safetensors", "what training changed"]],
    words: [2, 2],
    flags: [],
    run: diff,
  },
];

/** The help of one subcommand, or of all. Throws E-ARG-072 for one that does not exist. */
export function subcommandHelp(name?: string): string {
  if (name === undefined)
    return SUBCOMMANDS.map((one) => `longtail lora ${one.name} ${one.usage}\n    ${one.summary}`).join("\n");
  const found = SUBCOMMANDS.find((one) => one.name === name);
  if (!found) {
    const near = nearestName(
      name,
      SUBCOMMANDS.map((one) => one.name),
    );
    throw new LongtailError("E-ARG-072", {
      where: name,
      what: "longtail lora has no such subcommand",
      fix: near ? `did you mean longtail lora help ${near}?` : "longtail lora help lists them",
    });
  }
  return [
    `longtail lora ${found.name}: ${found.summary}`,
    "",
    `Usage: longtail lora ${found.name} ${found.usage}`,
    "",
    ...wrapText(found.description, 80),
    "",
    "Examples:",
    ...found.examples.flatMap(([line, what]) => [`  ${line}`, `      ${what}`]),
  ].join("\n");
}

async function inspect(context: CommandContext, [path]: readonly string[]): Promise<number> {
  const found = await inspectLora(context.files, path!);
  const table = renderTable(
    [{ title: "layer" }, right("size"), right("rank"), right("alpha"), right("‖ΔW‖")],
    found.layers.map((layer) => [
      layer.module,
      `${layer.outputs}×${layer.inputs}`,
      layer.rank === null ? "–" : String(layer.rank),
      layer.alpha === null ? "–" : compact(layer.alpha, 4),
      compact(layer.norm, 4),
    ]),
    context.columns(),
  );
  const metadata = Object.entries(found.metadata).map(([key, value]) => [key, value.replace(/\s+/g, " ")]);
  const text = [
    `${found.path}: ${found.kind} in the style of ${found.style}, ${found.layers.length} layers, ${found.dtype}`,
    `${grouped(found.parameters)} values, ${bytes(found.bytes)}`,
    "",
    table.trimEnd(),
    ...(metadata.length > 0
      ? ["", renderTable([{ title: "metadata" }, { title: "" }], metadata, context.columns()).trimEnd()]
      : []),
  ].join("\n");
  context.result(found, text);
  return 0;
}

/** Faults shown; the rest is counted (all are in --json). */
const SHOWN = 30;

async function verify(context: CommandContext, [path]: readonly string[]): Promise<number> {
  const named = textFlag(context, "base");
  const { base, why } =
    named === undefined
      ? await inferBase(context.files, path!)
      : { base: await findBase(context.files, named), why: null };
  const verdict = await verifyLora(context.files, path!, base);
  const errors = verdict.problems.filter(({ kind }) => kind === "error").length;
  const warnings = verdict.problems.length - errors;
  const shown = verdict.problems
    .slice(0, SHOWN)
    .map(({ kind, key, text }) => `${kind}: ${key ? `${key} ` : ""}${text}`);
  const more = verdict.problems.length - shown.length;
  const text = [
    ...(why === null ? [] : [`checked against ${base.name}, because ${why}; name another model with --base=MODEL`, ""]),
    ...shown,
    ...(more > 0 ? [`and ${more} more`] : []),
    ...(shown.length > 0 ? [""] : []),
    ...verdict.notes.map(({ program, loads, text: note }) => `${program}: ${loads}, ${note}`),
    "",
    errors > 0
      ? `${path}: does not fit ${base.name} (${errors} errors, ${warnings} warnings)`
      : `${path}: ${verdict.layers} layers (${verdict.kind}, ${verdict.style}) fit ${base.name}${warnings ? `, ${warnings} warnings` : ""}`,
  ].join("\n");
  context.result({ path, base: base.name, ...(why === null ? {} : { why }), ok: errors === 0, ...verdict }, text);
  return errors > 0 ? 4 : 0;
}

async function convert(context: CommandContext, [path]: readonly string[]): Promise<number> {
  const output = outputFlag(context, path!);
  const style = choice(context, "style", WRITTEN_STYLES);
  const dtype = choice(context, "dtype", ["f32", "f16", "bf16"] as const)?.toUpperCase() as LoraDtype | undefined;
  const scales = choice(context, "scales", ["metadata", "tensors", "folded"] as const);
  const done = await convertLora(context.files, path!, output, {
    ...(style ? { style } : {}),
    ...(dtype ? { dtype } : {}),
    ...(scales ? { scales } : {}),
  });
  const lost = done.lost.length > 0 ? done.lost.map((one) => `lost: ${one}`) : ["nothing was lost"];
  const line = `${output}: ${done.layers} layers, ${done.from.style} ${done.from.dtype} to ${done.to.style} ${done.to.dtype}`;
  context.result({ output, ...done }, [line, ...lost].join("\n"));
  return 0;
}

async function merge(context: CommandContext, words: readonly string[]): Promise<number> {
  const output = outputFlag(context, ...words);
  const name = textFlag(context, "base");
  if (name === undefined) throw missing("base", "the model that the adapters are added to");
  const given = (textFlag(context, "strength") ?? "1").split(",");
  const strengths = words.map((_, i) => Number(given.length === 1 ? given[0] : given[i]));
  if ((given.length !== 1 && given.length !== words.length) || strengths.some((one) => !Number.isFinite(one))) {
    throw badValue("strength", given.join(","), `one number for all, or ${words.length} with commas between`);
  }
  const base = await findBase(context.files, name);
  const inputs = words.map((path, i) => ({ path, strength: strengths[i]! }));
  const done = await mergeLoras(context.files, base, inputs, output, (at, total) =>
    context.emit({ kind: "phase", name: "merge", done: at, total, unit: "tensors" }),
  );
  const lines = inputs.map(({ path, strength }, i) => `${path} at ${strength}: ${done.layers[i]} layers`);
  context.result(
    { output, ...done, inputs },
    [...lines, `${done.files.at(-1)}: ${done.changed} of ${done.tensors} tensors changed`].join("\n"),
  );
  return 0;
}

async function resize(context: CommandContext, [path]: readonly string[]): Promise<number> {
  const output = outputFlag(context, path!);
  const [rank, energy] = [numberFlag(context, "rank"), numberFlag(context, "energy")];
  if ((rank === undefined) === (energy === undefined))
    throw missing("rank", "a rank, or --energy with a share (one of them)");
  if (rank !== undefined && (!Number.isInteger(rank) || rank < 1))
    throw badValue("rank", rank, "a whole number from 1");
  if (energy !== undefined && !(energy > 0 && energy <= 1))
    throw badValue("energy", energy, "a share above 0, up to 1");
  const done = await resizeLora(context.files, path!, output, rank !== undefined ? { rank } : { energy: energy! });
  const table = renderTable(
    [{ title: "layer" }, right("rank"), right("new"), right("energy kept")],
    done.layers.map((layer) => [layer.module, String(layer.before), String(layer.after), percent(layer.kept)]),
    context.columns(),
  );
  const text = [table.trimEnd(), "", ...done.notes, `${output}: ${percent(done.kept)} of the energy kept`].join("\n");
  context.result({ output, ...done }, text);
  return 0;
}

async function diff(context: CommandContext, [one, two]: readonly string[]): Promise<number> {
  const found = await diffLoras(context.files, [one!, two!]);
  const row = ({ module, norms, difference, cosine }: (typeof found)["total"]) => [
    module,
    compact(norms[0], 4),
    compact(norms[1], 4),
    compact(difference, 4),
    cosine === null ? "–" : cosine.toFixed(4),
  ];
  const table = renderTable(
    [{ title: "layer" }, right("‖ΔW₁‖"), right("‖ΔW₂‖"), right("‖ΔW₁−ΔW₂‖"), right("cosine")],
    [...found.layers, found.total].map(row),
    context.columns(),
  );
  context.result({ files: [one, two], ...found }, table.trimEnd());
  return 0;
}

const right = (title: string) => ({ title, align: "right" as const });
const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

function textFlag(context: CommandContext, name: string): string | undefined {
  const value = context.arguments.flags[name];
  return typeof value === "string" ? value : undefined;
}

function numberFlag(context: CommandContext, name: string): number | undefined {
  const text = textFlag(context, name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw badValue(name, text, "a number");
  return value;
}

function choice<T extends string>(context: CommandContext, name: string, allowed: readonly T[]): T | undefined {
  const text = textFlag(context, name)?.toLowerCase();
  if (text === undefined) return undefined;
  const found = allowed.find((one) => one === text);
  if (!found) throw badValue(name, text, `one of ${allowed.join(", ")}`);
  return found;
}

function outputFlag(context: CommandContext, ...inputs: string[]): string {
  const output = textFlag(context, "output");
  if (output === undefined) throw missing("output", "the file to write");
  if (inputs.includes(output)) throw badValue("output", output, "another file than the one that is read");
  return output;
}

const missing = (name: string, what: string) =>
  new LongtailError("E-ARG-073", { where: `--${name}`, what: "the flag is missing", fix: `give ${what}` });

const badValue = (name: string, value: string | number, accepted: string) =>
  new LongtailError("E-ARG-074", {
    where: `--${name}=${value}`,
    what: "the value does not fit",
    fix: `give ${accepted}`,
  });
