// `longtail report`: writes report.html of a run anew from its report.json, after the page's design has changed or the file
// was lost. No GPU is needed.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import { isTrainReport, type TrainReportData } from "../../evaluation/train_report_data.ts";
import { readRecord, runPaths } from "../../runs/run_folder.ts";
import type { Command } from "../command.ts";

export const command: Command = {
  name: "report",
  summary: "write a run's report.html again from its data",
  usage: "[run folder or name] [--folder=runs] [--output=FILE]",
  options: [
    { name: "folder", value: "PATH", summary: "folder of runs; default runs" },
    { name: "output", value: "FILE", summary: "write the page there; default report.html in the run folder" },
  ],
  description: "Without a name, the newest run of the folder is taken.",
  positionals: [0, 1],
  json: "result",
  examples: [
    ["longtail report", "the newest run"],
    ["longtail report runs/first --output=first.html", "one run, into another file"],
  ],
  async run(context) {
    const { flags, positionals } = context.arguments;
    const runs = typeof flags.folder === "string" ? flags.folder : "runs";
    const folder = await findRun(context.files, runs, positionals[0]);
    const data = await readReportData(context.files, runPaths(folder).reportData);
    const output = typeof flags.output === "string" ? flags.output : runPaths(folder).report;
    await context.files.writeAtomic(output, await pageOf(data));
    context.result({ run: folder, report: output }, `report: ${output}`);
    return 0;
  },
};

/** The folder of a named run, or of the newest one. Throws E-FILE-050 where there is none. */
export async function findRun(files: FileStore, runs: string, name?: string): Promise<string> {
  if (name !== undefined) {
    for (const folder of [name, join(runs, name)]) if (await files.exists(join(folder, "run.json"))) return folder;
    if (await files.exists(join(name, "report.json"))) return name;
    throw new LongtailError("E-FILE-050", {
      where: name,
      what: "this is not a run folder",
      why: "there is no run.json in it, nor a run of that name",
      fix: `give the path of a run folder, or the name of one in ${runs}`,
    });
  }
  let newest: { folder: string; started: string } | null = null;
  for (const entry of await files.list(runs)) {
    const folder = join(runs, entry);
    const record = await readRecord(files, folder);
    if (record && (await files.exists(runPaths(folder).reportData)) && (!newest || record.started > newest.started)) {
      newest = { folder, started: record.started };
    }
  }
  if (newest) return newest.folder;
  throw new LongtailError("E-FILE-050", {
    where: runs,
    what: "there is no run with report data",
    fix: "run `longtail demo` first, or name another folder with --folder",
  });
}

/** The page of an alignment's data or of a training's. */
async function pageOf(data: ReportData | TrainReportData): Promise<string> {
  if (isTrainReport(data as object))
    return (await import("../../evaluation/train_report.ts")).renderTrainReport(data as TrainReportData);
  return (await import("../../evaluation/report.ts")).renderReport(data as ReportData);
}

/** Reads report.json. Throws E-FILE-001 where it is missing, E-FILE-051 where it is not a report's data. */
export async function readReportData(files: FileStore, path: string): Promise<ReportData | TrainReportData> {
  if (!(await files.exists(path))) {
    throw new LongtailError("E-FILE-001", {
      where: path,
      what: "there is no such file",
      why: "the run ended before its report was made",
      fix: "resume the run to its end",
    });
  }
  const damaged = (why: string, cause?: unknown) =>
    new LongtailError("E-FILE-051", {
      where: path,
      what: "the file is not a report's data",
      why,
      fix: "resume the run; its end writes the file anew",
      cause,
    });
  let value: unknown;
  try {
    value = JSON.parse(await files.readText(path));
  } catch (cause) {
    if (cause instanceof LongtailError) throw cause;
    throw damaged((cause as Error).message, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw damaged("it holds no object");
  const missing = ["name", "createdAt", "status", "method", "model"].find((key) => !(key in value));
  if (missing) throw damaged(`${missing} is missing`);
  return value as ReportData | TrainReportData;
}
