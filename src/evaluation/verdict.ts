// Plain sentences about an evaluation. A change is called better or worse only where its 95 % interval excludes 0;
// everything else is said to be no significant change or too few items. Nothing here turns a table into praise.

import { capitalised, changeText, counted, score, signed } from "./format.ts";
import { type Change, judgement } from "./statistics.ts";
import { type EvaluationSummary, GROUPS, type Group, type GroupSummary, MEASURES, type Measure } from "./summary.ts";

/** What a sentence says of its subject; noted: it moved, which is neither good nor bad in itself. */
export type Tone = "better" | "worse" | "unchanged" | "noted" | "unknown";

export interface VerdictSentence {
  /** The group that it is about; absent for sentences about the whole run. */
  group?: Group;
  tone: Tone;
  text: string;
}

export interface Verdict {
  tone: Tone;
  /** One short sentence without numbers. */
  headline: string;
  /** The primary number: change of the judge on aligned tail items (or on the first group there is). */
  primary?: { group: Group; change: Change };
  sentences: VerdictSentence[];
}

export const GROUP_LABELS: Readonly<Record<Group, string>> = {
  aligned: "aligned tail items",
  "other tail": "other tail items",
  head: "head items",
};

/** What each group is for, one clause. */
export const GROUP_ROLES: Readonly<Record<Group, string>> = {
  aligned: "rare items that this run trained on",
  "other tail": "rare items that it never saw, to show spill-over",
  head: "common items, to show harm",
};

/** The verdict on an evaluation; `updates` is how many optimizer steps were made. */
export function verdictOf(summary: EvaluationSummary): Verdict {
  const first = GROUPS.map((group) => summary.groups.find((g) => g.group === group)).find((g) => g !== undefined);
  if (!first) return { tone: "unknown", headline: "No item was evaluated", sentences: [] };
  const tone = toneOf(first.changes.judge);
  const sentences: VerdictSentence[] = [];
  for (const group of summary.groups) sentences.push(groupSentence(group));
  sentences.push(...sideEffects(summary));
  if (summary.gap) {
    const gapTone = toneOf(summary.gap, -1);
    const verb = { better: "narrowed", worse: "widened", unchanged: "did not change significantly" }[gapTone as string];
    const change = changeText(summary.gap);
    sentences.push({
      tone: gapTone,
      text:
        `The gap between head and tail went from ${score(summary.gap.before)} to ${score(summary.gap.after)} ` +
        `(${change})${verb ? `: it ${verb}` : ""}.`,
    });
  }
  return {
    tone,
    headline: headlineOf(
      first,
      summary.groups.find((g) => g.group === "head"),
    ),
    primary: { group: first.group, change: first.changes.judge },
    sentences,
  };
}

/** Better, worse, unchanged, or unknown where there are too few items for an interval. */
export function toneOf(change: Pick<Change, "low" | "high">, good: 1 | -1 = 1): Tone {
  const word = judgement(change, good);
  if (word === "too few items") return "unknown";
  return word === "no significant change" ? "unchanged" : word;
}

function headlineOf(first: GroupSummary, head: GroupSummary | undefined): string {
  const subject = capitalised(GROUP_LABELS[first.group]);
  const tone = toneOf(first.changes.judge);
  const opening =
    {
      better: `${subject} got better`,
      worse: `${subject} got worse`,
      unchanged: `${subject} did not change significantly`,
    }[tone as string] ?? `Too few ${GROUP_LABELS[first.group]} for a verdict`;
  if (!head || head === first) return opening;
  const headTone = toneOf(head.changes.judge);
  if (headTone === "unknown") return opening;
  if (headTone === "unchanged") {
    return tone === "unchanged"
      ? `${opening}, nor did head items`
      : `${opening}; head items did not change significantly`;
  }
  if (headTone === tone) return `${opening}, and so did head items`;
  return headTone === "worse" ? `${opening}, but head items got worse` : `${opening}; head items got ${headTone}`;
}

function groupSentence({ group, items, changes }: GroupSummary): VerdictSentence {
  const tone = toneOf(changes.judge);
  const words = { better: "better", worse: "worse", unchanged: "no significant change" }[tone as string];
  const name = capitalised(GROUP_LABELS[group]);
  if (tone === "unknown") {
    return {
      group,
      tone,
      text: `${name}: judge ${signed(changes.judge.change)} over ${counted(items, "item")}, too few for an interval.`,
    };
  }
  let text = `${name}: judge ${changeText(changes.judge)}: ${words}`;
  if (changes.top1) {
    const top1 = changes.top1;
    text += `; top-1 ${score(top1.before, 2)} → ${score(top1.after, 2)} (${changeText(top1, 2)})`;
  }
  return { group, tone, text: `${text}.` };
}

/** Significant changes that the judge does not see, and a reward that runs ahead of the judge. */
function sideEffects(summary: EvaluationSummary): VerdictSentence[] {
  const sentences: VerdictSentence[] = [];
  const effects: Measure[] = ["diversity", "saturation", "contrast", "sharpness"];
  for (const measure of effects) {
    const parts: string[] = [];
    let harm = false;
    for (const { group, changes } of summary.groups) {
      const change = changes[measure];
      if (!change || change.low === null || change.high === null || (change.low <= 0 && change.high >= 0)) continue;
      if (MEASURES[measure].good * change.change < 0) harm = true;
      const share = change.before === 0 ? "" : ` (${signed((100 * change.change) / Math.abs(change.before), 0)} %)`;
      parts.push(`${GROUP_LABELS[group]} ${score(change.before)} → ${score(change.after)}${share}`);
    }
    if (parts.length === 0) continue;
    sentences.push({
      tone: harm ? "worse" : "noted",
      text: `${MEASURES[measure].label} changed: ${parts.join(", ")}.`,
    });
  }
  const aligned = summary.groups.find((g) => g.group === "aligned");
  const reward = aligned?.changes.reward;
  if (aligned && reward && reward.low !== null && reward.low > 0) {
    const judge = aligned.changes.judge;
    const ahead = judge.high !== null && reward.change > judge.high;
    const text =
      `The optimised reward rose by ${signed(reward.change)}, the held-out judge by ${signed(judge.change)}` +
      (ahead ? `: the reward gained more, which can be a sign of fitting the reward rather than the items.` : ".");
    if (ahead || toneOf(judge) === "better") sentences.push({ tone: ahead ? "worse" : "noted", text });
  }
  return sentences;
}
