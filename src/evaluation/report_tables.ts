// The report's tables: groups with every measure, regions and categories, prompt pairs, memory, timing, files and
// credits. Wide tables scroll inside their own box that can be focused, so that the page itself never scrolls
// sideways.

import { bytes, capitalised, changeText, duration, escapeHtml, grouped, interval, score, signed } from "./format.ts";
import { type IntervalRow, intervalBar, intervalRange } from "./report_charts.ts";
import {
  type Attribution,
  type MemoryCategory,
  PAIR_COSINE_WARNING,
  type PairCosine,
  type PhaseTime,
  type RunFile,
} from "./report_data.ts";
import { type Change, judgement } from "./statistics.ts";
import { type EvaluationSummary, MEASURES, type Measure, type SliceSummary } from "./summary.ts";
import { GROUP_LABELS, GROUP_ROLES } from "./verdict.ts";

/**
 * A table with a caption in a box that scrolls by itself. `head` and `rows` hold HTML; the first cell of a row is its
 * header; `leftColumns` are set left in tables whose kind sets numbers right.
 */
export function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  kind = "",
  leftColumns: readonly number[] = [],
): string {
  const align = (column: number) => (leftColumns.includes(column) ? ` class="left"` : "");
  const columns = head.map((cell, i) => `<th scope="col"${align(i)}>${cell}</th>`).join("");
  const body = rows
    .map(([first, ...cells]) => {
      const rest = cells.map((cell, i) => `<td${align(i + 1)}>${cell}</td>`).join("");
      return `<tr><th scope="row">${first}</th>${rest}</tr>`;
    })
    .join("");
  return (
    `<div class="scroll" role="region" aria-label="${escapeHtml(caption)}" tabindex="0">` +
    `<table class="${kind}"><caption>${escapeHtml(caption)}</caption><thead><tr>${columns}</tr></thead><tbody>${body}</tbody></table></div>`
  );
}

/** One block a group: every measure with before, after, change and interval. */
export function groupTable(summary: EvaluationSummary): string {
  const measures = (Object.keys(MEASURES) as Measure[]).filter((m) => summary.groups.some((g) => g.changes[m]));
  const tables = summary.groups.map(({ group, items, changes }) => {
    const rows = measures.flatMap((measure) => {
      const change = changes[measure];
      if (!change) return [];
      const { label, explanation, good } = MEASURES[measure];
      return [
        [
          `<span class="measure">${label}</span> <span class="explain">${escapeHtml(explanation)}</span>`,
          score(change.before),
          score(change.after),
          changeCell(change),
          wordOf(change, good),
        ],
      ];
    });
    const caption = `${capitalised(GROUP_LABELS[group])} (n = ${grouped(items)}): ${GROUP_ROLES[group]}`;
    return table(
      caption,
      ["Measure", "Before", "After", "Change, 95 % interval", "Verdict"],
      rows,
      "numeric numbers-table groups",
      [4],
    );
  });
  return tables.join("");
}

/** Regions, or categories of one part. */
export function sliceTable(caption: string, name: string, slices: readonly SliceSummary[]): string {
  if (slices.length === 0) return "";
  const range = intervalRange(slices.map((s) => s.judge));
  const withTop1 = slices.some((s) => s.top1);
  const rows = slices.map((s) => [
    escapeHtml(s.name),
    grouped(s.items),
    score(s.judge.before),
    score(s.judge.after),
    changeCell(s.judge),
    intervalBar(s.judge, range),
    ...(withTop1 ? [s.top1 ? `${score(s.top1.before, 2)} → ${score(s.top1.after, 2)}` : "–"] : []),
  ]);
  const head = [name, "Items", "Before", "After", "Change, 95 % interval", "Around zero"];
  return table(caption, withTop1 ? [...head, "Top-1"] : head, rows, "numeric numbers-table slices", [5]);
}

/** Forest of the groups' primary measure, for the top of the page. */
export function groupForest(summary: EvaluationSummary): string {
  const range = intervalRange(summary.groups.map((g): IntervalRow => g.changes.judge));
  const rows = summary.groups.map(({ group, items, changes }) => {
    const label = `${escapeHtml(capitalised(GROUP_LABELS[group]))} <small>n = ${grouped(items)}</small>`;
    return `<div class="forest-row"><span>${label}</span>${intervalBar(changes.judge, range, true)}<span class="value">${changeText(changes.judge)}</span></div>`;
  });
  return `<div class="forest">${rows.join("")}<p class="axis">change of the held-out judge; the line is zero, bars are 95 % intervals over items</p></div>`;
}

/** The prompt pairs' cosines, nearest to 1 first. */
export function pairTable(pairs: readonly PairCosine[]): string {
  const sorted = [...pairs].sort((a, b) => b.cosine - a.cosine);
  const above = (pair: PairCosine) => pair.cosine > PAIR_COSINE_WARNING;
  const rows = sorted.map((pair) => [
    escapeHtml(pair.item),
    score(pair.cosine, 4),
    above(pair) ? `<span class="flag worse">above ${score(PAIR_COSINE_WARNING, 2)}</span>` : "distinct",
    escapeHtml(pair.positive),
    escapeHtml(pair.negative),
  ]);
  const caption = "Cosine of positive and negative caption, t+ and t−, nearest to 1 first";
  return table(caption, ["Item", "Cosine", "", "Positive", "Negative"], rows, "pairs");
}

/** Planned bytes by category. A row named «total» is the sum that the run itself gave, and is shown as such. */
export function memoryTable(memory: readonly MemoryCategory[]): string {
  const parts = memory.filter((m) => m.category !== "total");
  const given = memory.find((m) => m.category === "total");
  const planned = given?.plannedBytes ?? parts.reduce((sum, m) => sum + m.plannedBytes, 0);
  const rows = parts.map((m) => [
    escapeHtml(m.category),
    bytes(m.plannedBytes),
    planned > 0 ? shareBar(m.plannedBytes, planned) : "",
  ]);
  rows.push(["<b>Total</b>", `<b>${bytes(planned)}</b>`, ""]);
  const measured = given?.allocatedBytes;
  if (measured !== undefined) {
    const off = planned > 0 ? ` <small>(${signed((100 * (measured - planned)) / planned, 1)} %)</small>` : "";
    rows.push([MEASURED_MEMORY, `${bytes(measured)}${off}`, ""]);
  }
  return table("Device memory", ["Category", "Planned", "Share"], rows, "numeric shares");
}

/** Of a software adapter the operating system sees how much memory its device holds. */
const MEASURED_MEMORY = `Measured <span class="explain">what the operating system counts for the device</span>`;

export function timingTable(timing: readonly PhaseTime[]): string {
  const total = timing.reduce((sum, t) => sum + t.seconds, 0);
  const rows = timing.map((t) => [
    escapeHtml(t.phase),
    duration(t.seconds),
    t.count && t.count > 1 ? `${grouped(t.count)} ${escapeHtml(t.unit ?? "")}` : "",
    shareBar(t.seconds, total),
  ]);
  rows.push(["<b>Total</b>", `<b>${duration(total)}</b>`, "", ""]);
  return table("Wall time by phase", ["Phase", "Time", "Work", "Share"], rows, "numeric shares");
}

export function fileTable(files: readonly RunFile[]): string {
  const sized = files.some((f) => f.bytes !== undefined);
  const rows = files.map((f) => [
    `<code>${escapeHtml(f.path)}</code>`,
    ...(sized ? [bytes(f.bytes)] : []),
    escapeHtml(f.what),
  ]);
  return table("Files of the run", sized ? ["File", "Size", "What it is"] : ["File", "What it is"], rows, "files");
}

export function attributionTable(attributions: readonly Attribution[]): string {
  const rows = attributions.map((a) => {
    const safe = a.url !== undefined && /^https?:\/\//.test(a.url);
    const what = safe
      ? `<a href="${escapeHtml(a.url!)}" rel="noreferrer">${escapeHtml(a.what)}</a>`
      : escapeHtml(a.what);
    return [what, escapeHtml(a.licence), escapeHtml(a.credit)];
  });
  return table("Credits and licences", ["What", "Licence", "Credit"], rows, "files");
}

export function shareBar(part: number, whole: number): string {
  const percent = whole > 0 && Number.isFinite(part) ? Math.round((1000 * part) / whole) / 10 : 0;
  return `<span class="share"><i style="width:${percent}%"></i></span><small>${percent.toFixed(0)} %</small>`;
}

function changeCell(change: Change): string {
  const range = interval(change.low, change.high) || `<span class="quiet">no interval</span>`;
  return `${signed(change.change)} ${range}`;
}

function wordOf(change: Change, good: 1 | -1 | 0): string {
  const word = judgement(change, good === 0 ? 1 : good);
  if (word === "too few items") return `<span class="quiet">too few items</span>`;
  if (word === "no significant change") return `<span class="quiet">no significant change</span>`;
  if (good === 0) return change.change > 0 ? "▲ rose" : "▼ fell";
  return `<span class="flag ${word}">${word === "better" ? "▲" : "▼"} ${word}</span>`;
}
