// Cards that put an item's real picture beside what the model draws before and after, from the same noise, with its
// numbers. The choice of items is by rule and shows gains, the middle and losses alike; everything else is folded
// below.

import { capitalised, escapeHtml, score, signed } from "./format.ts";
import { dumbbell } from "./report_charts.ts";
import type { Attribution, ItemPictures, Picture } from "./report_data.ts";
import { GROUPS, type Group, type ItemRow, itemChange, typicalChange } from "./summary.ts";
import { GROUP_LABELS } from "./verdict.ts";

/** Items without scores that are shown unfolded: three rows on a wide screen. */
const UNSCORED_SHOWN = 12;

export interface Choice {
  gains: ItemRow[];
  typical: ItemRow[];
  losses: ItemRow[];
  rest: ItemRow[];
}

/**
 * Sorts rows into the `count` biggest gains, the `count` smallest changes (the losses, largest first), the `count`
 * nearest to the median, and the rest in order of change. No row is in two lists; a short list is shared out evenly.
 */
export function chooseItems(rows: readonly ItemRow[], count: number): Choice {
  const sorted = [...rows].sort((a, b) => itemChange(b) - itemChange(a) || (a.item < b.item ? -1 : 1));
  const each = Math.min(count, Math.max(1, Math.floor(sorted.length / 3)));
  const gains = sorted.slice(0, each);
  const losses = sorted.slice(Math.max(each, sorted.length - each)).reverse();
  const between = sorted.slice(each, Math.max(each, sorted.length - each));
  const middle = typicalChange(rows);
  const typical = [...between]
    .sort((a, b) => Math.abs(itemChange(a) - middle) - Math.abs(itemChange(b) - middle))
    .slice(0, each)
    .sort((a, b) => itemChange(b) - itemChange(a));
  return { gains, typical, losses, rest: between.filter((row) => !typical.includes(row)) };
}

/** The picture section's content; an empty text where there is no picture. */
export function strips(
  pictures: readonly ItemPictures[],
  rows: readonly ItemRow[],
  attributions: readonly Attribution[],
): string {
  if (pictures.length === 0) return "";
  const credits = new Map(attributions.map((a) => [a.key, a]));
  const byItem = new Map(pictures.map((p) => [`${p.group}/${p.item}`, p]));
  const parts: string[] = [];
  for (const group of GROUPS) {
    const scored = rows.filter((row) => row.group === group && byItem.has(`${group}/${row.item}`));
    const known = new Set(scored.map((row) => row.item));
    const unscored = pictures.filter((p) => p.group === group && !known.has(p.item));
    const card = (row: ItemRow) => itemCard(byItem.get(`${group}/${row.item}`)!, row, credits);
    if (scored.length > 0) parts.push(scoredGroup(group, scored, card));
    if (unscored.length > 0) {
      const title =
        scored.length > 0 ? `${capitalised(GROUP_LABELS[group])} without scores` : capitalised(GROUP_LABELS[group]);
      const [shown, folded] = [unscored.slice(0, UNSCORED_SHOWN), unscored.slice(UNSCORED_SHOWN)];
      const plain = (p: ItemPictures) => itemCard(p, null, credits);
      parts.push(`<h3>${title}</h3>${cards(shown.map(plain))}${more(`${folded.length} more`, folded.map(plain))}`);
    }
  }
  return parts.join("");
}

function scoredGroup(group: Group, rows: readonly ItemRow[], card: (row: ItemRow) => string): string {
  const choice = chooseItems(rows, 4);
  const buckets: [string, string, ItemRow[]][] = [
    [endTitle(choice.gains, 1), "by change of the judge", choice.gains],
    ["Typical", `nearest to the median change of ${signed(typicalChange(rows))}`, choice.typical],
    [endTitle(choice.losses, -1), "the other end of the same list", choice.losses],
  ];
  let html = `<h3>${escapeHtml(capitalised(GROUP_LABELS[group]))}</h3>`;
  for (const [title, note, list] of buckets) {
    if (list.length > 0) html += `<h4>${title} <small>${note}</small></h4>${cards(list.map(card))}`;
  }
  const others = `The other ${choice.rest.length} ${GROUP_LABELS[group]}, in order of change`;
  return html + more(others, choice.rest.map(card));
}

/** What the items at one end of the list have in common: a list of losses may hold gains where few items lost. */
function endTitle(rows: readonly ItemRow[], direction: 1 | -1): string {
  const [proper, others] = direction > 0 ? ["gains", "losses"] : ["losses", "gains"];
  const moved = rows.filter((row) => direction * itemChange(row) > 0).length;
  if (moved === 0) return `Smallest ${others}`;
  return moved === rows.length ? `Biggest ${proper}` : `${capitalised(proper)} and smallest ${others}`;
}

/** Cards behind a line that unfolds; nothing for no cards. */
function more(title: string, list: readonly string[]): string {
  return list.length === 0
    ? ""
    : `<details class="more"><summary>${escapeHtml(title)}</summary>${cards(list)}</details>`;
}

function cards(list: readonly string[]): string {
  return `<ul class="cards">${list.join("")}</ul>`;
}

function itemCard(item: ItemPictures, row: ItemRow | null, credits: ReadonlyMap<string, Attribution>): string {
  const place = [item.category, item.region].filter((text) => text !== "").join(" · ");
  const columns: [string, string, Picture[]][] = [
    ["Real", "real", item.real],
    ["Before", "before", item.before],
    ["After", "after", item.after],
  ];
  const shown = columns
    .filter(([, , pictures]) => pictures.length > 0)
    .map(
      ([title, kind, pictures]) =>
        `<div class="column ${kind}"><span class="kind">${title}</span>${pictures.map((p) => picture(p, kind, item.item)).join("")}</div>`,
    );
  return (
    `<li class="card"><div class="title"><b>${escapeHtml(item.item)}</b>${row ? chip(itemChange(row)) : ""}</div>` +
    `<div class="place">${escapeHtml(place)}</div><div class="columns">${shown.join("")}</div>` +
    `${row ? numbers(row) : ""}${credit(item.real, credits)}</li>`
  );
}

function picture(p: Picture, kind: string, item: string): string {
  const what = kind === "real" ? "real picture" : `model's picture ${kind}`;
  return embeddedPicture(p, `${item}, ${what}${p.label ? ` (${p.label})` : ""}`);
}

/** A picture with its alternative text; an empty frame in place of one that the page does not carry itself. */
export function embeddedPicture(p: Picture, alternative: string): string {
  const text = escapeHtml(alternative);
  // Only pictures that the page carries itself: anything else would be a request to somewhere.
  if (!p.source.startsWith("data:image/"))
    return `<span class="missing" role="img" aria-label="${text}: missing"></span>`;
  return `<img src="${escapeHtml(p.source)}" width="${p.width}" height="${p.height}" alt="${text}" loading="lazy" decoding="async">`;
}

function chip(change: number): string {
  if (!Number.isFinite(change)) return "";
  const rounded = Number(change.toFixed(3));
  const [tone, arrow] = rounded > 0 ? ["better", "▲"] : rounded < 0 ? ["worse", "▼"] : ["unsure", "●"];
  return `<span class="chip ${tone}"><span aria-hidden="true">${arrow}</span> ${signed(change)}</span>`;
}

function numbers(row: ItemRow): string {
  const { before, after } = row;
  const parts = [`judge ${score(before.judge, 2)} → ${score(after.judge, 2)}`];
  if (before.top1 !== undefined && after.top1 !== undefined) {
    const n = row.pictures;
    parts.push(
      n
        ? `top-1 ${Math.round(before.top1 * n)} → ${Math.round(after.top1 * n)} of ${n}`
        : `top-1 ${score(before.top1, 2)} → ${score(after.top1, 2)}`,
    );
  }
  const spans = parts.map((text) => `<span>${text}</span>`).join("");
  return `${dumbbell(before.judge, after.judge)}<div class="numbers">${spans}</div>`;
}

function credit(real: readonly Picture[], credits: ReadonlyMap<string, Attribution>): string {
  const names = new Set<string>();
  for (const p of real) {
    const a = p.credit === undefined ? undefined : credits.get(p.credit);
    if (a) names.add(`${a.what} (${a.licence})`);
    else if (p.credit) names.add(p.credit);
  }
  return names.size === 0 ? "" : `<div class="credit">Real: ${escapeHtml([...names].join(", "))}</div>`;
}
