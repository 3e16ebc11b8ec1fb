// The report page of a run: one static HTML file that carries its pictures, charts and style in itself, asks nothing
// of any server, needs no script, and can be sent by mail or kept with a paper. What it says follows from ReportData
// alone.

import type { ReportData } from "./report_data.ts";
import { renderPage } from "./report_page.ts";
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

/** Renders the page. Works for any state of a run: sections without data are left out. */
export function renderReport(data: ReportData): string {
  return renderPage({
    title: `${data.name}: alignment report`,
    createdAt: data.createdAt,
    headline: headlineSection(data),
    sections: [
      ["pictures", "Before and after", pictureSection(data)],
      ["numbers", "The numbers", tableSection(data)],
      ["limits", "What this does not show", limitSection(data)],
      ["curves", "How the run went", curveSection(data)],
      ["guards", "Guard rails", guardSection(data)],
      ["pairs", "Prompt pairs", pairSection(data)],
      ["run", "The run", runSection(data)],
      ["credits", "Credits", creditSection(data)],
    ],
  });
}
