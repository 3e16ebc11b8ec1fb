// `longtail align`: SRPO on a pipeline and a list of items, from configuration to report.

import { join, relative } from "node:path";
import type { RunEvent } from "../../base/events.ts";
import { fanOut } from "../../base/events.ts";
import { changeText, duration, score } from "../../evaluation/format.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import { GROUP_LABELS, verdictOf } from "../../evaluation/verdict.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import type { Target } from "../../tensor/lower.ts";
import { targetOf } from "../../tensor/target.ts";
import { checkAlignment } from "../align/checks.ts";
import { checkMemoryCap, deviceLine, withRunDevice } from "../align/device.ts";
import { loadItems } from "../align/items.ts";
import { judgedItems } from "../align/judged.ts";
import { chooseFromLadder } from "../align/ladder.ts";
import { reportData, saveWeights, writeReport } from "../align/outputs.ts";
import { Phases } from "../align/phases.ts";
import { realPictures } from "../align/protocol.ts";
import { type AlignInputs, runAlignment } from "../align/run.ts";
import { RunStore } from "../align/store.ts";
import { openStoredPrompts, withStoredPrompts } from "../align/stored_prompts.ts";
import { encodeTexts } from "../align/texts.ts";
import { buildTuned, readKernels } from "../align/tuning.ts";
import { buildWorld, checkModels, openWorld } from "../align/world.ts";
import type { Command, CommandContext } from "../command.ts";
import { type ResolvedConfig, withValue } from "../config/load.ts";
import { toToml } from "../config/toml.ts";
import { unreadKeys } from "../config/unread.ts";
import { withLocalModels } from "../model_files.ts";
import { adapterStreams, chooseOffload } from "../offload.ts";
import { PROFILE_OPTION, profiled } from "../profile.ts";
import { renderTable } from "../table.ts";

export const command: Command = {
  name: "align",
  summary: "align a model with under-represented items by SRPO",
  usage: "[preset | file.toml] [--section.key=value ...]",
  options: [PROFILE_OPTION],
  description:
    "Draws pictures of tail items, scores them with a reward under positive and negative texts, and moves the model along " +
    "the reward's gradient (Direct-Align). A judge that is not optimised measures tail and head before and after.",
  positionals: [0, 1],
  configuration: true,
  examples: [
    ["longtail align embedded", "the embedded experiment"],
    ["longtail align embedded --align.steps=80 --adapter=lora", "a LoRA, 80 updates"],
    ["longtail align my.toml --resume=auto --name=first", "continue the run of that name"],
  ],
  run: (context) => align(context, context.arguments.positionals[0] ?? "embedded"),
};

/** The whole run; `demo` is this with the embedded preset. */
export async function align(context: CommandContext, source: string, commandName = "align"): Promise<number> {
  let resolved = await context.loadConfig({ source });
  checkAlignment(resolved.config);
  for (const { code, text } of unreadKeys(resolved, "align")) context.emit({ kind: "warning", code, text });
  resolved = { ...resolved, config: await withLocalModels(context.files, resolved.config, context.emit, true) };
  return await withRunDevice(resolved.config, context.emit, (gpu) =>
    alignOn(gpu, context, resolved, source, commandName),
  );
}

async function alignOn(
  gpu: Gpu,
  context: CommandContext,
  loaded: ResolvedConfig,
  source: string,
  commandName: string,
): Promise<number> {
  const { files, signal } = context;
  const stored = await openStoredPrompts(files, loaded.config);
  let resolved = { ...loaded, config: withStoredPrompts(loaded.config, stored) };
  const { config } = resolved;
  const started = performance.now();
  const events: { step?: number; code: string; text: string }[] = [];
  const emit = fanOut(context.emit, (event: RunEvent) => {
    if (event.kind === "warning" || event.kind === "error") events.push({ code: event.code, text: event.text });
  });
  const phases = new Phases(emit);

  emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
  const { items, data } = await loadItems(files, config, stored);
  if (stored)
    emit({
      kind: "message",
      text: `prompts: ${items.length} captions of ${stored.folder}, encoded already; data.prompt and the styles are not read`,
    });
  const judged = judgedItems(config, items);
  // Real pictures are shown at the end; one that does not decode is told before hours of work, not after.
  for (const one of judged) await realPictures(data, one);
  const { environmentFacts } = await import("../../platform/environment.ts");
  await checkModels(files, config, targetOf(gpu));
  const run = await context.openRun(resolved, { command: commandName });
  const texts = await encodeTexts({ files, config, gpu, items, judged, stored, emit, phases, signal });
  const kernelsFile = join(run.paths.folder, "kernels.json");
  const fixed = run.resumed ? await readKernels(files, kernelsFile) : undefined;
  const { world, choices, text, offload } = await phases.timed("trace and tune", 1, "session", async () => {
    const build = (target: Target, stream: StreamOptions | null) =>
      buildWorld(files, config, target, { train: true, stream });
    const chosen = await chooseOffload(config, { canStream: adapterStreams(config) }, (stream) =>
      build(targetOf(gpu), stream),
    );
    const tuned = await buildTuned(files, config, gpu, (target) => build(target, chosen.stream), fixed);
    return { ...tuned, offload: chosen.text };
  });
  if (offload) emit({ kind: "message", text: offload });
  emit({ kind: "message", text });
  await files.writeAtomic(kernelsFile, `${JSON.stringify(choices, null, 1)}\n`);
  const { total } = world.session.memory();
  checkMemoryCap(config, total);
  const environment = await environmentFacts();
  await run.writeEnvironment({ ...environment, adapter: gpu.facts, limits: gpu.limits });
  await phases.timed("compile and load", world.session.plans.length, "plans", (tick) =>
    openWorld(world, gpu, config, (name, done, count) => name === "compile" && tick(done, count)),
  );
  const store = new RunStore(files, run, config, emit, choices);
  const alignment: AlignInputs = {
    files,
    config,
    world,
    items,
    texts,
    data,
    emit,
    signal,
    store,
    async chooseSteps(flopsPerSecond, flopsPerUpdate) {
      const choice = chooseFromLadder(config.align.ladder, flopsPerSecond, flopsPerUpdate);
      emit({ kind: "message", text: choice.text });
      resolved = withValue(resolved, "align.steps", choice.steps, choice.origin);
      await run.writeConfig(resolved.sourceText, toToml(resolved));
      return choice.steps;
    },
  };
  const { session } = world;
  const outcome = await profiled({ context, gpu, session, emit, path: run.paths.profile }, () =>
    runAlignment(alignment),
  );
  const { softwareDeviceBytes } = await import("../../platform/device_memory.ts");
  outcome.timing.unshift(...phases.times());
  const inputs = {
    files,
    world,
    resolved,
    run,
    outcome,
    data,
    gpu,
    environment,
    command:
      `npx longtail ${commandName}${commandName === "demo" ? "" : ` ${source}`} ${context.arguments.overrides.map((o) => `--${o.key}=${o.value}`).join(" ")}`.trim(),
    allocatedBytes: gpu.facts.software ? softwareDeviceBytes() : null,
    encoderBytes: texts.plannedBytes,
    events,
  };
  const last = new Phases(emit);
  const difference = await last.timed("save weights", 1, "set", () => saveWeights(inputs));
  outcome.timing.push(...last.times());
  const report = await reportData(inputs, difference);
  await writeReport(files, run, report);
  await run.finish("finished", { step: outcome.done });
  world.session.close();
  await world.pipeline.close();
  const summary = closing(
    report,
    relative(".", run.paths.report) || run.paths.report,
    context.columns(),
    (performance.now() - started) / 1000,
  );
  context.result(
    { run: run.paths.folder, report: run.paths.report, status: report.status, evaluation: report.evaluation?.summary },
    summary,
  );
  return 0;
}

/** The short table at the end, what it says in words, and where the report lies. */
export function closing(report: ReportData, path: string, columns: number, seconds: number): string {
  const summary = report.evaluation!.summary;
  const rows = summary.groups.flatMap((group) =>
    (["judge", "top1", "reward"] as const).flatMap((measure) => {
      const change = group.changes[measure];
      if (!change) return [];
      return [
        [
          measure === "judge" ? `${GROUP_LABELS[group.group]} (${group.items})` : "",
          measure === "top1" ? "top-1" : measure,
          score(change.before),
          score(change.after),
          changeText(change),
        ],
      ];
    }),
  );
  const table = renderTable(
    [
      { title: "items" },
      { title: "measure" },
      { title: "before", align: "right" },
      { title: "after", align: "right" },
      { title: "change [95 % interval]", align: "right" },
    ],
    rows,
    columns,
  );
  const verdict = verdictOf(summary);
  const sentences = verdict.sentences.slice(0, 4).map((s) => `- ${s.text}`);
  const speed = report.device?.gflops ? `, ${report.device.gflops.toFixed(1)} GFLOP/s` : "";
  return [
    "",
    table.trimEnd(),
    "",
    ...sentences,
    "",
    `${report.status.updatesDone} updates, ${duration(seconds)} in all${speed}`,
    `report: ${path}`,
  ].join("\n");
}
