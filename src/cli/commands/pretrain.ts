// `longtail pretrain`: the generator, reward and judge of the embedded experiment from nothing, and how good such models
// are at telling and drawing its items.

import { join, relative, resolve } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import { duration, score } from "../../evaluation/format.ts";
import { parseJson } from "../../formats/jsonl.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { ResolvedConfig } from "../../runs/config/load.ts";
import { deviceLine } from "../../runs/device.ts";
import { targetOf } from "../../tensor/target.ts";
import { evaluatePretrained, type GroupedRetrieval } from "../../training/pretrain/evaluate.ts";
import { pipelineDocument } from "../../training/pretrain/export.ts";
import { loadPretrainData, type PretrainPart } from "../../training/pretrain/jobs.ts";
import type { PretrainSettings } from "../../training/pretrain/recipes.ts";
import type { Command, CommandContext } from "../command.ts";
import { planParts, planText } from "../pretrain/plan.ts";
import { type PretrainOutcome, pretrainPart } from "../pretrain/run.ts";
import { DEFAULT_RECIPE, partsOf, recipeOf, wholeFlag } from "../pretrain/settings.ts";
import { withRunDevice } from "../run_device.ts";
import { renderTable } from "../table.ts";

const CHECKPOINT_EVERY = 500;
const RECORD = "pretrain.json";
/** Of the evaluation: 12 steps with shift 1.5 is what the models are judged with. */
const DRAWING = { steps: 12, shift: 1.5, seed: 5, batch: 8 };

export const command: Command = {
  name: "pretrain",
  summary: "train the embedded models from nothing, or evaluate them",
  usage: "<generator|reward|judge|all> [full|short|page] [--steps=N] [--batch=N] [--plan] | evaluate DIR [--stride=N]",
  options: [
    {
      name: "data",
      value: "DIR",
      summary: "items and pictures, as `longtail data build` makes them; default: those that come along",
    },
    { name: "output", value: "DIR", summary: "folder of the trained pipeline; default model in the run folder" },
    { name: "steps", value: "N", summary: "steps instead of the recipe's" },
    { name: "batch", value: "N", summary: "samples of a step instead of the recipe's" },
    {
      name: "accumulation",
      value: "N",
      summary: "micro-batches that a step of the generator is cut into; less memory",
    },
    { name: "rate", value: "X", summary: "peak learning rate instead of the recipe's" },
    { name: "seed", value: "N", summary: "seed of weights, noise and draws" },
    { name: "stride", value: "N", summary: "use every N-th item alone" },
    { name: "checkpoint-every", value: "N", summary: `steps between checkpoints; default ${CHECKPOINT_EVERY}` },
    { name: "plan", summary: "print sizes, work and time of the recipe, and train nothing" },
    { name: "no-draw", summary: "evaluate: leave the generator out" },
  ],
  description:
    "The generator is trained with both of its text encoders by flow matching, reward and judge by a contrastive loss with " +
    "several positives. The result is a pipeline folder that `longtail align --model.pipeline=DIR` takes. Ctrl-C saves; " +
    "--run.resume=FOLDER goes on to the bit.",
  positionals: [1, 2],
  configuration: true,
  examples: [
    ["longtail pretrain all short", "a few minutes on two cores: the losses fall"],
    ["longtail pretrain all full --plan", "what the whole recipe takes"],
    ["longtail pretrain evaluate models/embedded --stride=10", "retrieval of a tenth of the items"],
  ],
  async run(context) {
    const [what, second] = context.arguments.positionals as [string, string | undefined];
    if (what === "evaluate") return await evaluate(context, second);
    return await pretrain(context, what, second ?? DEFAULT_RECIPE);
  },
};

/** What a run was begun with, in its pretrain.json. */
interface Begun {
  parts: PretrainPart[];
  settings: PretrainSettings;
  data: string;
  output: string | null;
}

async function pretrain(context: CommandContext, what: string, recipeName: string): Promise<number> {
  const { files } = context;
  const { flags } = context.arguments;
  const resolved = await context.loadConfig({});
  const begun = await begunRun(context, resolved.config.run.resume);
  const parts = begun?.parts ?? partsOf(what);
  const recipe = begun?.settings ?? recipeOf(recipeName, flags);
  const folders = { ...foldersOf(context), ...(begun ? { data: begun.data } : {}) };
  const data = await loadPretrainData(files, folders, recipe);
  // Sizes follow the pictures: `longtail data build --size=96` makes models for 96 pixels.
  const settings = { ...recipe, imageSize: data.size };
  if (flags.plan === true) {
    const plans = await planParts(parts, settings, data);
    context.result(plans, planText(plans, context.columns()));
    return 0;
  }
  return await withRunDevice(resolved.config, context.emit, async (gpu) => {
    const run = await context.openRun(resolved, { command: "pretrain" });
    context.emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
    const { environmentFacts } = await import("../../platform/environment.ts");
    await run.writeEnvironment({ ...(await environmentFacts()), adapter: gpu.facts, limits: gpu.limits });
    const given = begun ? begun.output : typeof flags.output === "string" ? flags.output : null;
    const record: Begun = { parts, settings, data: folders.data, output: given };
    await files.writeAtomic(join(run.paths.folder, RECORD), `${JSON.stringify(record, null, 1)}\n`);
    const output = given ?? join(run.paths.folder, "model");
    const shared = {
      files,
      gpu,
      data,
      settings,
      folder: run.paths.folder,
      output,
      taef2: folders.taef2,
      resumed: run.resumed,
      tuner: resolved.config.device.tuner === "on",
      checkpointEvery: wholeFlag(flags, "checkpoint-every", 1) ?? CHECKPOINT_EVERY,
      emit: context.emit,
      signal: context.signal,
    };
    const outcomes: PretrainOutcome[] = [];
    for (const part of parts) outcomes.push(await pretrainPart(shared, part));
    await writePipeline(context, settings, output, folders);
    await run.finish("finished", { step: Math.max(...outcomes.map((o) => o.steps)) });
    context.result({ run: run.paths.folder, output, outcomes }, closing(outcomes, output, context.columns()));
    return 0;
  });
}

/** The recipe of the run that is continued by path; null for a new run. A recipe named again is not looked at. */
async function begunRun(context: CommandContext, resume: string): Promise<Begun | null> {
  const path = join(resume, RECORD);
  if (resume === "auto" || resume === "no" || !(await context.files.exists(path))) return null;
  context.emit({ kind: "message", text: `parts and recipe are those that the run began with (${path})` });
  return parseJson(await context.files.readText(path), path) as Begun;
}

interface Folders {
  data: string;
  tokenizers: string;
  taef2: string;
}

function foldersOf(context: CommandContext): Folders {
  const models = join(context.projectRoot, "models");
  const { flags } = context.arguments;
  return {
    data: typeof flags.data === "string" ? flags.data : join(models, "embedded"),
    tokenizers: join(models, "tokenizers"),
    taef2: join(models, "taef2/taef2.safetensors"),
  };
}

/** pipeline.json and the list of items, which make the folder a pipeline of its own. */
async function writePipeline(
  context: CommandContext,
  settings: PretrainSettings,
  output: string,
  folders: Folders,
): Promise<void> {
  const { files } = context;
  const vae = relative(resolve(output), resolve(folders.taef2)).replaceAll("\\", "/");
  await files.writeAtomic(
    join(output, "pipeline.json"),
    `${JSON.stringify(pipelineDocument(settings, vae), null, 1)}\n`,
  );
  await files.writeAtomic(join(output, "items.json"), await files.readBytes(join(folders.data, "items.json")));
}

/** A part that an earlier start had finished has no losses of its own. */
const lossText = (loss: number) => (Number.isFinite(loss) ? loss.toFixed(4) : "–");

function closing(outcomes: readonly PretrainOutcome[], output: string, columns: number): string {
  const right = { align: "right" } as const;
  const table = renderTable(
    [
      { title: "part" },
      { title: "steps", ...right },
      { title: "first loss", ...right },
      { title: "last loss", ...right },
      { title: "time", ...right },
      { title: "GFLOP/s", ...right },
    ],
    outcomes.map((o) => [
      o.part,
      String(o.steps),
      lossText(o.first),
      lossText(o.last),
      duration(o.seconds),
      o.gflops.toFixed(1),
    ]),
    columns,
  );
  return [
    table.trimEnd(),
    `pipeline: ${output}`,
    `evaluate it with: longtail pretrain evaluate ${output}`,
    `align it with: longtail align embedded --model.pipeline=${output}`,
  ].join("\n");
}

async function evaluate(context: CommandContext, folder: string | undefined): Promise<number> {
  if (folder === undefined) {
    throw new LongtailError("E-ARG-065", {
      what: "no folder of trained models was given",
      fix: "longtail pretrain evaluate runs/<name>/model, or models/embedded",
    });
  }
  const { files, arguments: parsed } = context;
  if ((await files.list(folder)).length === 0) {
    throw new LongtailError("E-FILE-001", {
      what: "there is no such folder, or nothing in it",
      where: folder,
      fix: "give the folder that `longtail pretrain` named at its end",
    });
  }
  const stride = wholeFlag(parsed.flags, "stride", 1) ?? 1;
  const resolved: ResolvedConfig = await context.loadConfig({});
  return await withRunDevice(resolved.config, context.emit, async (gpu: Gpu) => {
    const folders = foldersOf(context);
    const result = await evaluatePretrained(
      files,
      gpu,
      targetOf(gpu),
      {
        ...DRAWING,
        folder,
        data: folders.data,
        tokenizers: folders.tokenizers,
        fallback: join(context.projectRoot, "models/embedded"),
        stride,
        draw: parsed.flags["no-draw"] !== true,
      },
      (name, done, total) => {
        context.signal.throwIfAborted();
        context.emit({ kind: "phase", name, done, total, unit: "pictures" });
      },
    );
    const rows = (["reward", "judge", "generator"] as const).flatMap((name) => {
      const groups: GroupedRetrieval | null = result[name];
      if (!groups) return [];
      return (["tail", "head"] as const).map((group, i) => {
        const { pictures, top1, top5, cosine } = groups[group];
        const label = name === "generator" ? "generator (judge)" : name;
        return [i === 0 ? label : "", group, String(pictures), score(top1), score(top5), score(cosine)];
      });
    });
    const right = { align: "right" } as const;
    const table = renderTable(
      [
        { title: "part" },
        { title: "items" },
        { title: "pictures", ...right },
        { title: "top-1", ...right },
        { title: "top-5", ...right },
        { title: "cosine", ...right },
      ],
      rows,
      context.columns(),
    );
    context.result(result, table.trimEnd());
    return 0;
  });
}
