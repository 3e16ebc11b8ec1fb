// `longtail align`: SRPO on a pipeline and a list of items, from configuration to report. The run itself is
// src/runs/align/job.ts.

import { relative } from "node:path";
import { changeText, duration, score } from "../../evaluation/format.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import { GROUP_LABELS, verdictOf } from "../../evaluation/verdict.ts";
import { checkAlignment } from "../../runs/align/checks.ts";
import { runAlign } from "../../runs/align/job.ts";
import { unreadKeys } from "../../runs/config/unread.ts";
import type { Command, CommandContext } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { PROFILE_OPTION } from "../profile.ts";
import { withRunDevice } from "../run_device.ts";
import { runHost } from "../run_host.ts";
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
  const started = performance.now();
  const words = context.arguments.overrides.map((o) => `--${o.key}=${o.value}`).join(" ");
  const host = runHost(
    context,
    `npx longtail ${commandName}${commandName === "demo" ? "" : ` ${source}`} ${words}`.trim(),
  );
  const { run, report } = await withRunDevice(resolved.config, context.emit, (gpu) =>
    runAlign(gpu, host, resolved, commandName),
  );
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
