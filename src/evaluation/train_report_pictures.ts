// Pictures of a training run: what the model drew before and after from the same noise, the grid of samples over time,
// and pictures that were learnt from. A grid scrolls inside its own box; a prompt stays readable above its row.

import { counted, escapeHtml, grouped } from "./format.ts";
import { embeddedPicture } from "./report_strips.ts";
import type { SampleColumn, SamplePrompt, TrainReportData } from "./train_report_data.ts";

/** Columns of the grid; more would make the page heavy and the pictures small. */
const MOST_COLUMNS = 8;
/** Cards and rows that are shown unfolded. */
const SHOWN = 12;
/** Longer captions are cut in the folder of examples; the whole is in the element's title. */
const LONGEST_CAPTION = 160;

/** Before-and-after cards and the grid; an empty text where nothing was drawn. */
export function samplesSection(data: TrainReportData): string {
  const samples = data.samples;
  if (!samples || samples.prompts.length === 0 || !samples.columns.some((c) => c.pictures.some(Boolean))) return "";
  const columns = [...samples.columns].sort((a, b) => a.step - b.step);
  const first = columns[0]!;
  const last = columns.at(-1)!;
  const comparison = first.step === 0 && columns.length > 1 ? compare(samples.prompts, first, last) : "";
  const grid = columns.length > 2 || !comparison ? gridOf(samples.prompts, columns) : "";
  const protocol = samples.protocol ? `<p class="lead">${escapeHtml(samples.protocol)}.</p>` : "";
  const remarks = (data.remarks ?? []).map((text) => `<p>${escapeHtml(text)}</p>`).join("");
  return `${protocol}${remarks ? `<div class="box">${remarks}</div>` : ""}${comparison}${grid}`;
}

function compare(prompts: readonly SamplePrompt[], first: SampleColumn, last: SampleColumn): string {
  const cards = prompts.flatMap((prompt, i) => {
    const [before, after] = [first.pictures[i], last.pictures[i]];
    if (!before || !after) return [];
    const column = (title: string, kind: string, picture: string) =>
      `<div class="column ${kind}"><span class="kind">${title}</span>${picture}</div>`;
    const alternative = `${prompt.prompt}, seed ${prompt.seed}`;
    const parts = [
      ...(prompt.real
        ? [column("Learnt from", "real", embeddedPicture(prompt.real, `${prompt.prompt}, a training picture`))]
        : []),
      column("Before", "before", embeddedPicture(before, `${alternative}, before training`)),
      column(`Step ${grouped(last.step)}`, "after", embeddedPicture(after, `${alternative}, after step ${last.step}`)),
    ];
    return [
      `<li class="card sample"><div class="prompt">${escapeHtml(prompt.prompt)}</div><div class="place">seed ${prompt.seed}</div>` +
        `<div class="columns">${parts.join("")}</div></li>`,
    ];
  });
  if (cards.length === 0) return "";
  const list = (items: readonly string[]) => `<ul class="cards samples">${items.join("")}</ul>`;
  const folded = cards.slice(SHOWN);
  const more = folded.length
    ? `<details class="more"><summary>${counted(folded.length, "more prompt")}</summary>${list(folded)}</details>`
    : "";
  return (
    `<h3>Before and after</h3><p class="lead">Both pictures of a card start from the same random numbers; only the trained weights differ.</p>` +
    list(cards.slice(0, SHOWN)) +
    more
  );
}

/** The first column, the last and as many between them as fit, spread evenly. */
export function chooseColumns<T>(columns: readonly T[], most = MOST_COLUMNS): T[] {
  if (columns.length <= most) return [...columns];
  return Array.from({ length: most }, (_, i) => columns[Math.round((i * (columns.length - 1)) / (most - 1))]!);
}

function gridOf(prompts: readonly SamplePrompt[], all: readonly SampleColumn[]): string {
  const columns = chooseColumns(all);
  const head = columns
    .map(({ step }) => `<th scope="col">${step === 0 ? "Before training" : `Step ${grouped(step)}`}</th>`)
    .join("");
  const rows = prompts.flatMap((prompt, i) => {
    if (!columns.some((c) => c.pictures[i])) return [];
    const cells = columns.map(({ step, pictures }) => {
      const picture = pictures[i];
      const text = `${prompt.prompt}, seed ${prompt.seed}, ${step === 0 ? "before training" : `step ${step}`}`;
      return `<td>${picture ? embeddedPicture(picture, text) : `<span class="missing" role="img" aria-label="${escapeHtml(text)}: not drawn"></span>`}</td>`;
    });
    const label = `<span>${escapeHtml(prompt.prompt)} <small>seed ${prompt.seed}</small></span>`;
    return [
      `<tr class="row-head"><th scope="rowgroup" colspan="${columns.length}">${label}</th></tr><tr>${cells.join("")}</tr>`,
    ];
  });
  const left = all.length - columns.length;
  const note = left > 0 ? ` ${counted(left, "other step")} are in samples/.` : "";
  return (
    `<h3>Samples over time</h3><p class="lead">Every row is one prompt and one seed, drawn again at each step.${note}</p>` +
    `<div class="scroll grid-box" role="region" aria-label="Samples over time" tabindex="0"><table class="grid">` +
    `<caption>Samples over time</caption><thead><tr>${head}</tr></thead><tbody>${rows.join("</tbody><tbody>")}</tbody></table></div>`
  );
}

/** Some training pictures with their captions. */
export function exampleStrip(data: TrainReportData): string {
  const examples = data.data?.examples ?? [];
  if (examples.length === 0) return "";
  const credits = new Map((data.attributions ?? []).map((a) => [a.key, a]));
  const items = examples.map(({ picture, caption, name }) => {
    const credit = picture.credit === undefined ? undefined : credits.get(picture.credit);
    const short = caption.length > LONGEST_CAPTION ? `${caption.slice(0, LONGEST_CAPTION)}…` : caption;
    const source = credit ? `<div class="credit">${escapeHtml(`${credit.what} (${credit.licence})`)}</div>` : "";
    return (
      `<li>${embeddedPicture(picture, `training picture: ${caption || name || "without caption"}`)}` +
      `<div class="caption">${caption ? escapeHtml(short) : `<span class="quiet">no caption</span>`}</div>${source}</li>`
    );
  });
  return (
    `<h3>What it learnt from</h3><p class="lead">Some of the pictures as the network saw them, with their captions.</p>` +
    `<ul class="examples">${items.join("")}</ul>`
  );
}
