// `longtail eval`: scores of pictures by HPS, PickScore, CLIP or the aesthetic predictor, one row a picture, means with
// intervals a group. It runs in the trainer itself: no second environment, and the version of the metric beside every number.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import { interval, score } from "../../evaluation/format.ts";
import { type ScoreKind, type ScoreSummary, summariseScores } from "../../evaluation/scores.ts";
import type { PictureFit } from "../../rewards/clip_reward.ts";
import type { HpsVersion } from "../../rewards/labels.ts";
import { checkMemoryCap, checkPrecision, deviceLine } from "../../runs/device.ts";
import { Phases } from "../../runs/phases.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { choice } from "../choice.ts";
import type { Command, CommandContext } from "../command.ts";
import { type ModelChoice, openEvalScorer } from "../eval/models.ts";
import { findPictures } from "../eval/pictures.ts";
import { PictureScoring } from "../eval/scoring.ts";
import { modelLocator } from "../hub_models.ts";
import { withRunDevice } from "../run_device.ts";
import { renderTable } from "../table.ts";

const KINDS: readonly ScoreKind[] = ["hps", "pickscore", "clip", "aesthetic"];

export const command: Command = {
  name: "eval",
  summary: "score pictures with HPS, PickScore, CLIP or an aesthetic head",
  usage: "hps|pickscore|clip|aesthetic PICTURES --model=PATH [--output=DIR] [--prompts=PATH] [--section.key=value ...]",
  options: [
    {
      name: "model",
      value: "PATH",
      summary:
        'HPS_v2.1.pt, a folder of open_clip or of transformers\' CLIPModel, or a hub id; "embedded" is the small judge (for hps the small reward)',
    },
    { name: "head", value: "FILE", summary: "the aesthetic predictor's linear head (.pth or safetensors)" },
    {
      name: "prompts",
      value: "PATH",
      summary: "folder of HPS's benchmark_*.json, or a .json object from picture names to prompts",
    },
    {
      name: "output",
      value: "PATH",
      summary: "folder for scores.jsonl and summary.json; default eval-KIND in PICTURES",
    },
    { name: "fit", value: "HOW", summary: "crop the long side or pad the short one with black; default pad for hps" },
    { name: "hps-version", value: "VERSION", summary: "2.0 or 2.1, where the path of the model does not say it" },
  ],
  description:
    "PICTURES is a folder or a run. A picture's prompt comes from --prompts, from HPS's benchmark files, from a .txt file of " +
    "its name, or from the text inside the PNG; its group is the first folder of its path. Rows that are there are kept.",
  positionals: [2, 2],
  configuration: true,
  aliases: { batch: "eval.batch" },
  examples: [
    ["longtail eval clip runs/first --model=embedded", "a run's pictures by the judge that comes along"],
    ["longtail eval hps pictures --model=HPS_v2.1_compressed.pt", "HPS v2.1 of pictures with prompts"],
    [
      "longtail eval pickscore pictures --model=yuvalkirstain/PickScore_v1 --json",
      "PickScore from the hub, for machines",
    ],
  ],
  run: evaluate,
};

async function evaluate(context: CommandContext): Promise<number> {
  const { files, emit, signal } = context;
  const [word, where] = context.arguments.positionals as [string, string];
  const flags = context.arguments.flags;
  const { config } = await context.loadConfig({ preset: "embedded" });
  const text = (name: string) => (typeof flags[name] === "string" ? flags[name] : null);
  const at = modelLocator(files, config, emit);
  const here = async (name: string) => (text(name) === null ? null : await at(text(name)!));
  const kind = KINDS.find((one) => one === word);
  if (!kind)
    throw new LongtailError("E-ARG-083", {
      what: "there is no such score",
      where: word,
      fix: `use one of ${KINDS.join(", ")}`,
    });
  const chosen: ModelChoice = {
    kind,
    model: await here("model"),
    head: await here("head"),
    fit: text("fit") === null ? null : choice<PictureFit>(flags["fit"], "fit", ["crop", "pad"]),
    version:
      text("hps-version") === null ? null : choice<HpsVersion>(flags["hps-version"], "hps-version", ["2.1", "2.0"]),
  };
  const found = await findPictures(files, where, text("prompts"));
  const output = text("output") ?? join(found.home, `eval-${kind}`);
  const { pictures } = found;
  return await withRunDevice(config, emit, async (gpu) => {
    emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
    const target = targetOf(gpu);
    checkPrecision(config, target);
    const session = new Session(target);
    try {
      const open = await openEvalScorer(files, session, config, chosen);
      for (const note of open.scorer.checkpoint.notes) emit({ kind: "warning", code: "E-FILE-145", text: note });
      const scoring = new PictureScoring(session, open, Math.min(config.eval.batch, pictures.length));
      checkMemoryCap(config, session.memory().total);
      const phases = new Phases(emit);
      await phases.timed("compile and load", session.plans.length, "plans", async (tick) => {
        await session.open(gpu, tick);
        await open.scorer.loadWeights(session);
      });
      const rows = join(output, "scores.jsonl");
      const scored = await phases.timed("score", pictures.length, "pictures", (tick) =>
        scoring.scoreAll(files, rows, pictures, tick, signal),
      );
      const { unknown } = open.scorer;
      if (unknown.size > 0)
        emit({
          kind: "warning",
          code: "E-DATA-060",
          text: `${unknown.size} prompts have words that the model's text table does not hold; they read as nothing`,
        });
      const summary = summariseScores(open.facts, scored.rows, scored.dropped, config.eval.seed);
      const path = join(output, "summary.json");
      const facts = { ...summary, folder: found.folder, pictures: pictures.length, kept: scored.kept };
      await files.writeAtomic(path, `${JSON.stringify(facts, null, 2)}\n`);
      for (const { picture, code, why } of scored.dropped.slice(0, 3))
        emit({ kind: "warning", code, text: `${picture} is left out: ${why}` });
      if (scored.rows.length === 0)
        throw new LongtailError("E-DATA-072", {
          what: `none of ${pictures.length} pictures could be scored`,
          where: found.folder,
          why: scored.dropped[0]?.why ?? "there are none",
          fix: "give the prompts with --prompts, or as .txt files beside the pictures",
        });
      context.result({ ...facts, rows, summary: path }, tableOf(summary, scored.kept, rows));
      return 0;
    } finally {
      session.close();
    }
  });
}

function tableOf({ scorer, groups, dropped }: ScoreSummary, kept: number, rows: string): string {
  const digits = scorer.kind === "hps" ? 4 : 3;
  const table = renderTable(
    [
      { title: scorer.label },
      { title: "pictures", align: "right" },
      { title: "mean", align: "right" },
      { title: "95 % interval", align: "right" },
      { title: "deviation", align: "right" },
    ],
    groups.map(({ group, n, mean, low, high, deviation }) => [
      group === "" ? "(folder itself)" : group,
      String(n),
      score(mean, digits),
      low === null ? "too few" : interval(low, high, digits),
      score(deviation, digits),
    ]),
  );
  const scale =
    scorer.kind === "hps"
      ? "cosine as it is; leaderboards print it times 100, and v2.0 and v2.1 are not comparable"
      : scorer.kind === "aesthetic"
        ? "about 1 to 10"
        : `cosine times ${score(scorer.scale, 2)}`;
  const notes = [kept > 0 ? `${kept} were there already` : "", dropped.length > 0 ? `${dropped.length} left out` : ""];
  return `${table}${[scale, ...notes.filter(Boolean)].join("; ")}\nrows: ${rows}`;
}
