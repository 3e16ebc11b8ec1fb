// The frame of every report page: head, policy, headline with links to the sections, the sections and the footer. What
// stands in them is the business of the page's own module.

import { escapeHtml } from "./format.ts";
import { STYLE } from "./report_style.ts";

/** Nothing but what the file carries may load, in a browser that honours the policy. */
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

export interface Page {
  /** The document's title. */
  title: string;
  /** ISO 8601, or any text. */
  createdAt: string;
  /** HTML of the top, `<h1>` included. */
  headline: string;
  /** [id, title as HTML, content as HTML]; a section without content is left out. */
  sections: readonly (readonly [string, string, string])[];
  /** Style of this kind of page, after the shared one. */
  style?: string;
}

/** The whole document. */
export function renderPage(page: Page): string {
  const present = page.sections.filter(([, , html]) => html !== "");
  const links = present.map(([id, title]) => `<li><a href="#${id}">${title}</a></li>`).join("");
  const body = present
    .map(
      ([id, title, html]) =>
        `<section id="${id}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${html}</section>`,
    )
    .join("\n");
  return (
    `<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n` +
    `<meta name="viewport" content="width=device-width, initial-scale=1">\n` +
    `<meta http-equiv="Content-Security-Policy" content="${POLICY}">\n<meta name="generator" content="Longtail">\n` +
    `<title>${escapeHtml(page.title)}</title>\n<style>${STYLE}${page.style ?? ""}</style>\n</head>\n<body>\n<a class="skip" href="#main">Skip to the results</a>\n` +
    `<div class="page">\n<main id="main">\n<header class="top">${page.headline}` +
    `<nav aria-label="Sections"><ul>${links}</ul></nav></header>\n${body}\n</main>\n` +
    `<footer>Made by Longtail on <time datetime="${escapeHtml(page.createdAt)}">${escapeHtml(dateText(page.createdAt))}</time>. ` +
    `This file is complete in itself and loads nothing.</footer>\n</div>\n</body>\n</html>\n`
  );
}

/** «2026-03-01 12:30 UTC», or the text as it is where it is no date. */
function dateText(iso: string): string {
  const time = Date.parse(iso);
  return Number.isNaN(time) ? iso : `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
