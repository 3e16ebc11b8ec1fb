// Scores pictures batch by batch. Every batch's rows are on the disk before the next one begins, and rows of the same picture,
// prompt and scorer that are there already are kept.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import { cosine } from "../../evaluation/image_statistics.ts";
import { rowKey, type ScoreRow, type ScoreSummary } from "../../evaluation/scores.ts";
import { jsonLine, parseJsonLines } from "../../formats/jsonl.ts";
import { pictureFeatures } from "../../rewards/clip_reward.ts";
import { fitPlanes } from "../../rewards/fit.ts";
import type { Plan, Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { OpenScorer } from "./models.ts";
import { type EvalPicture, openPicture } from "./pictures.ts";

/** Texts that go through an encoder at a time. */
const TEXT_BATCH = 16;

export interface Scored {
  rows: ScoreRow[];
  kept: number;
  dropped: ScoreSummary["dropped"];
}

/** A picture whose score is not known yet. */
interface Waiting {
  picture: EvalPicture;
  row: Omit<ScoreRow, "score">;
  planes: Float32Array;
}

export class PictureScoring {
  readonly batch: number;
  private readonly session: Session;
  private readonly open: OpenScorer;
  private readonly plan: Plan;
  private readonly input: Variable;
  private readonly features: Variable;

  /** Traces the towers; the session must not be open yet. */
  constructor(session: Session, open: OpenScorer, batch: number) {
    const { scorer } = open;
    this.session = session;
    this.open = open;
    this.batch = batch;
    const side = scorer.model.config.vision.imageSize;
    this.input = session.data("eval.pictures", [batch, 3, side, side]);
    this.features = session.data("eval.features", [batch, scorer.width]);
    this.plan = session.plan("score pictures", (graph) => {
      const { features } = pictureFeatures(scorer.model, graph, graph.read(this.input), (name, values, shape) =>
        session.constant(graph, name, values, shape),
      );
      graph.assign(this.features, features);
    });
    if (open.facts.kind !== "aesthetic") scorer.planText(session, TEXT_BATCH);
  }

  private async score(part: readonly Waiting[]): Promise<ScoreRow[]> {
    const { session, open } = this;
    const { scorer, head, facts } = open;
    const prompts = part.map(({ row }) => row.prompt!);
    const texts = head ? [] : await scorer.textFeatures(session, prompts);
    const size = part[0]!.planes.length;
    const pixels = new Float32Array(this.batch * size);
    for (let i = 0; i < this.batch; i++) pixels.set((part[i] ?? part[0]!).planes, i * size);
    session.write(this.input, pixels);
    await session.replay(this.plan);
    const features = await session.read(this.features);
    return part.map(({ row }, i) => {
      const feature = features.subarray(i * scorer.width, (i + 1) * scorer.width);
      const score = head ? head.score(feature) : facts.scale * cosine(feature, texts[i]!);
      if (!Number.isFinite(score))
        throw new LongtailError("E-NUM-011", {
          what: "the score is not a finite number",
          where: row.picture,
          why: "the model's weights or their precision do not allow it",
          fix: 'use device.precision = "f32", and check the weights',
        });
      return { ...row, score };
    });
  }

  /** Scores what `file` does not have yet; `tick` hears how many pictures are done. */
  async scoreAll(
    files: FileStore,
    file: string,
    pictures: readonly EvalPicture[],
    tick: (done: number) => void,
    signal: AbortSignal,
  ): Promise<Scored> {
    const { facts, scorer } = this.open;
    const needsPrompt = facts.kind !== "aesthetic";
    const known = await readRows(files, file);
    const found = new Map<string, ScoreRow>();
    const dropped: Scored["dropped"] = [];
    let kept = 0;
    let waiting: Waiting[] = [];
    const flush = async () => {
      if (waiting.length === 0) return;
      const rows = await this.score(waiting);
      await files.append(file, rows.map(jsonLine).join(""));
      for (const row of rows) found.set(row.picture, row);
      waiting = [];
    };
    for (const [i, picture] of pictures.entries()) {
      if (signal.aborted) throw signal.reason;
      try {
        const bytes = await picture.read();
        const { planes, width, height, prompt } = await openPicture(picture, bytes);
        if (needsPrompt && prompt === null)
          throw new LongtailError("E-DATA-073", {
            what: "the picture has no prompt",
            where: picture.name,
            why: "no .txt file of its name, no text in it, no entry in --prompts",
          });
        const row = {
          picture: picture.name,
          group: picture.group,
          prompt: needsPrompt ? prompt : null,
          scorer: facts.label,
          model: facts.model,
          fit: facts.fit,
          precision: facts.precision,
          sha256: (await sha256(bytes)).slice(0, 32),
        };
        const old = known.get(rowKey(row));
        if (old) {
          found.set(picture.name, { ...old, group: row.group });
          kept++;
        } else {
          const side = scorer.model.config.vision.imageSize;
          waiting.push({ picture, row, planes: fitPlanes(planes, width, height, side, this.open.fit) });
        }
      } catch (error) {
        if (!(error instanceof LongtailError) || !error.code.startsWith("E-DATA")) throw error;
        dropped.push({ picture: picture.name, code: error.code, why: [error.parts.what, error.parts.why].join(": ") });
      }
      if (waiting.length === this.batch) await flush();
      tick(i + 1);
    }
    await flush();
    const rows = pictures.flatMap(({ name }) => found.get(name) ?? []);
    // In the order of the pictures, without rows of pictures or scorers that are gone.
    await files.writeAtomic(file, rows.map(jsonLine).join(""));
    return { rows, kept, dropped };
  }
}

async function readRows(files: FileStore, file: string): Promise<Map<string, ScoreRow>> {
  if (!(await files.exists(file))) return new Map();
  const text = await files.readText(file);
  const rows = parseJsonLines(text, file, { tornTail: true }).flatMap(({ value }) => (isRow(value) ? [value] : []));
  // Rows to come must not be written behind half a line.
  if (!text.endsWith("\n")) await files.writeAtomic(file, rows.map(jsonLine).join(""));
  return new Map(rows.map((row) => [rowKey(row), row]));
}

const isRow = (value: unknown): value is ScoreRow =>
  typeof value === "object" && value !== null && Number.isFinite((value as ScoreRow).score);
