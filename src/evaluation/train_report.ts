// The report page of a training run: one static HTML file in the look of the alignment's, complete in itself. What it says
// follows from TrainReportData alone.

import { renderPage } from "./report_page.ts";
import { creditSection } from "./report_sections.ts";
import type { TrainReportData } from "./train_report_data.ts";
import { samplesSection } from "./train_report_pictures.ts";
import {
  dataSection,
  filesSection,
  settingsSection,
  speedSection,
  trainCurveSection,
  trainHeadlineSection,
  trainLimitSection,
} from "./train_report_sections.ts";
import { TRAIN_STYLE } from "./train_report_style.ts";

/** Renders the page. Works for any state of a run: sections without data are left out. */
export function renderTrainReport(data: TrainReportData): string {
  return renderPage({
    title: `${data.name}: training report`,
    createdAt: data.createdAt,
    headline: trainHeadlineSection(data),
    style: TRAIN_STYLE,
    sections: [
      ["samples", "Samples", samplesSection(data)],
      ["curves", "How the run went", trainCurveSection(data)],
      ["data", "The pictures", dataSection(data)],
      ["files", "Files and how to load them", filesSection(data)],
      ["limits", "What this does not show", trainLimitSection(data)],
      ["speed", "Speed and memory", speedSection(data)],
      ["settings", "Settings", settingsSection(data)],
      ["credits", "Credits", creditSection(data)],
    ],
  });
}
