// `longtail train`: a folder of pictures with captions in, an adapter out (LoRA, DoRA, LoKr) or the whole transformer, from
// configuration to report. The run itself is src/runs/train/job.ts.

import { relative } from "node:path";
import { duration } from "../../evaluation/format.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { ResolvedConfig } from "../../runs/config/load.ts";
import { checkTraining, withDataFlag } from "../../runs/train/checks.ts";
import { runTrain } from "../../runs/train/job.ts";
import type { Command, CommandContext } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { PROFILE_OPTION } from "../profile.ts";
import { withRunDevice } from "../run_device.ts";
import { runHost } from "../run_host.ts";

/** Short names that mean a training run's keys. */
export const TRAIN_ALIASES = { steps: "train.steps", batch: "train.batch", lr: "optim.lr", rank: "adapter.rank" };

export const command: Command = {
  name: "train",
  summary: "train a LoRA, DoRA or LoKr on pictures with captions",
  usage: "[preset | file.toml] [--data=PATH] [--section.key=value ...]",
  options: [
    {
      name: "data",
      value: "PATH",
      summary: "pictures in place of data.sets: a folder, a .zip, a .parquet file, an items.json",
    },
    PROFILE_OPTION,
  ],
  description:
    "Pictures and captions are encoded first and cached. Samples are drawn from fixed noise before the first update and " +
    "as the run goes on; it leaves the adapter in diffusers' and in kohya's keys, TensorBoard files, log.jsonl and a " +
    "report. Write save, sample, pause or stop into the run's CMD file to be heard at the next update.",
  positionals: [0, 1],
  configuration: true,
  aliases: TRAIN_ALIASES,
  examples: [
    ["longtail train lora", "the small model that comes along, ten of its rare items, about a minute"],
    ["longtail init lora > my.toml && longtail train my.toml", "your own configuration"],
    ["longtail train lora --data=./pictures --steps=400 --data.trigger=ohwx", "your own pictures"],
    ["longtail train my.toml --name=first --resume=auto", "continue the run of that name"],
  ],
  async run(context) {
    const source = context.arguments.positionals[0];
    const loaded = await context.loadConfig({ ...(source === undefined ? {} : { source }), preset: "lora" });
    let resolved = withDataFlag(loaded, context.arguments.flags["data"]);
    checkTraining(resolved.config);
    resolved = { ...resolved, config: await withLocalModels(context.files, resolved.config, context.emit) };
    return await withRunDevice(resolved.config, context.emit, (gpu) => train(gpu, context, resolved, source ?? "lora"));
  },
};

async function train(gpu: Gpu, context: CommandContext, resolved: ResolvedConfig, source: string): Promise<number> {
  const started = performance.now();
  const host = runHost(context, commandLine(context, source));
  const { run, report, paths, state, validationLabel } = await runTrain(gpu, host, resolved);
  const path = relative(".", run.paths.report) || run.paths.report;
  const first = state.validation[0]?.loss;
  const last = state.validation.at(-1)?.loss;
  context.result(
    {
      run: run.paths.folder,
      report: run.paths.report,
      files: paths,
      steps: state.step,
      validation: state.validation,
      speed: report.speed,
    },
    [
      "",
      `${state.step} updates, ${duration((performance.now() - started) / 1000)} in all` +
        (report.speed ? `, ${report.speed.stepsPerSecond.toFixed(2)} updates/s` : ""),
      ...(first === undefined || last === undefined
        ? []
        : [`${validationLabel}: ${first.toFixed(4)} before, ${last.toFixed(4)} after (the same noise both times)`]),
      ...paths.map((file) => `weights: ${relative(".", file) || file}`),
      `report: ${path}`,
    ].join("\n"),
  );
  return 0;
}

/** Keys that belong to this run alone; with them the command would meet its own folder. */
const OWN_KEYS = ["run.name", "name", "run.resume", "resume"];

/** The command that repeats the run, as words of a POSIX shell. */
function commandLine(context: CommandContext, source: string): string {
  const { overrides, flags } = context.arguments;
  const data = typeof flags["data"] === "string" ? [`--data=${flags["data"]}`] : [];
  const keys = overrides.filter((o) => !OWN_KEYS.includes(o.key)).map((o) => `--${o.key}=${o.value}`);
  const word = (text: string) => (/^[\w./:=@%,+-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);
  return ["npx longtail train", ...[source, ...data, ...keys].map(word)].join(" ");
}
