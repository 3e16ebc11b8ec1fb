// What a pretraining recipe would take: parameters, bytes, work and time of each part, before anything is run.

import { duration } from "../../evaluation/format.ts";
import { Session } from "../../tensor/session.ts";
import { portableTarget } from "../../tensor/target.ts";
import { trainingFlops, viewFlops } from "../../training/pretrain/cost.ts";
import { partSizes } from "../../training/pretrain/export.ts";
import { declareJob, type PretrainData, type PretrainPart } from "../../training/pretrain/jobs.ts";
import type { PretrainSettings } from "../../training/pretrain/recipes.ts";
import { renderTable } from "../table.ts";

/**
 * GFLOP/s that times are worked out with: what two cores under a software GPU were measured to do (12 to 30), and what a
 * large GPU is assumed to do at float32.
 */
const SPEEDS = { software: 20, gpu: 5000 };

export interface PartPlan {
  part: PretrainPart;
  files: { file: string; parameters: number; bytes: number }[];
  steps: number;
  batch: number;
  pictures: number;
  /** GFLOP of all steps, and of making the views. */
  training: number;
  views: number;
  deviceBytes: number;
}

export async function planParts(
  parts: readonly PretrainPart[],
  settings: PretrainSettings,
  data: PretrainData,
): Promise<PartPlan[]> {
  // A large adapter's limits, so that a large batch can be planned at all.
  const target = { ...portableTarget(), maxBindingBytes: 2 ** 31 - 256 };
  const plans: PartPlan[] = [];
  for (const part of parts) {
    const session = new Session(target);
    const job = await declareJob(session, part, settings, data);
    const pictures = (await data.pictures(part === "judge" && settings.judge.allStyles)).length;
    plans.push({
      part,
      files: partSizes(job),
      steps: settings[part].steps,
      batch: settings[part].batch,
      pictures,
      training: trainingFlops(session.plans, settings, part) / 1e9,
      views: viewFlops(target, settings, part, pictures) / 1e9,
      deviceBytes: session.memory().total,
    });
  }
  return plans;
}

export function planText(plans: readonly PartPlan[], columns: number): string {
  const time = (gflop: number, speed: number) => duration(gflop / speed);
  const rows = plans.map((p) => {
    const all = p.training + p.views;
    return [
      p.part,
      `${p.steps} x ${p.batch}`,
      (p.files.reduce((n, f) => n + f.parameters, 0) / 1e6).toFixed(2),
      (p.files.reduce((n, f) => n + f.bytes, 0) / 1e6).toFixed(2),
      (p.training / 1e3).toFixed(1),
      (p.views / 1e3).toFixed(1),
      (p.deviceBytes / 2 ** 30).toFixed(2),
      time(all, SPEEDS.software),
      time(all, SPEEDS.gpu),
    ];
  });
  const right = { align: "right" } as const;
  const table = renderTable(
    [
      { title: "part" },
      { title: "steps", ...right },
      { title: "M param", ...right },
      { title: "MB f16", ...right },
      { title: "TFLOP", ...right },
      { title: "views", ...right },
      { title: "GiB", ...right },
      { title: "2 cores", ...right },
      { title: "GPU", ...right },
    ],
    rows,
    columns,
  );
  const files = plans.flatMap((p) => p.files).map((f) => `${f.file} ${f.bytes.toLocaleString("en")} bytes`);
  return [
    table.trimEnd(),
    `files: ${files.join(", ")}`,
    `times are worked out, not measured: ${SPEEDS.software} GFLOP/s on two cores, ${SPEEDS.gpu} GFLOP/s assumed of a large GPU`,
  ].join("\n");
}
