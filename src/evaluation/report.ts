// The report page of a run: one static HTML file that carries its pictures, charts and style in itself, asks nothing
// of any server, needs no script, and can be sent by mail or kept with a paper. What it says follows from ReportData
// alone.

import { escapeHtml } from "./format.ts";
import type { ReportData } from "./report_data.ts";
import {
  creditSection,
  curveSection,
  guardSection,
  headlineSection,
  limitSection,
  pairSection,
  pictureSection,
  runSection,
  tableSection,
} from "./report_sections.ts";
import { STYLE } from "./report_style.ts";

/** Nothing but what the file carries may load, in a browser that honours the policy. */
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/** Renders the page. Works for any state of a run: sections without data are left out. */
export function renderReport(data: ReportData): string {
  const sections: [string, string, string][] = [
    ["pictures", "Before and after", pictureSection(data)],
    ["numbers", "The numbers", tableSection(data)],
    ["limits", "What this does not show", limitSection(data)],
    ["curves", "How the run went", curveSection(data)],
    ["guards", "Guard rails", guardSection(data)],
    ["pairs", "Prompt pairs", pairSection(data)],
    ["run", "The run", runSection(data)],
    ["credits", "Credits", creditSection(data)],
  ];
  const present = sections.filter(([, , html]) => html !== "");
  const links = present.map(([id, title]) => `<li><a href="#${id}">${title}</a></li>`).join("");
  const body = present
    .map(
      ([id, title, html]) =>
        `<section id="${id}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${html}</section>`,
    )
    .join("\n");
  const title = `${data.name}: alignment report`;
  return (
    `<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n` +
    `<meta name="viewport" content="width=device-width, initial-scale=1">\n` +
    `<meta http-equiv="Content-Security-Policy" content="${POLICY}">\n<meta name="generator" content="Longtail">\n` +
    `<title>${escapeHtml(title)}</title>\n<style>${STYLE}</style>\n</head>\n<body>\n<a class="skip" href="#main">Skip to the results</a>\n` +
    `<div class="page">\n<main id="main">\n<header class="top">${headlineSection(data)}` +
    `<nav aria-label="Sections"><ul>${links}</ul></nav></header>\n${body}\n</main>\n` +
    `<footer>Made by Longtail on <time datetime="${escapeHtml(data.createdAt)}">${escapeHtml(dateText(data.createdAt))}</time>. ` +
    `This file is complete in itself and loads nothing.</footer>\n</div>\n</body>\n</html>\n`
  );
}

/** «2026-03-01 12:30 UTC», or the text as it is where it is no date. */
function dateText(iso: string): string {
  const time = Date.parse(iso);
  return Number.isNaN(time) ? iso : `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
