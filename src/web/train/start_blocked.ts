// Why training cannot start now, as the end of a sentence; the Start button says it.

import { computed } from "@preact/signals";
import { pictureProblem } from "../pictures/problem.ts";
import { startProblem } from "../settings.ts";
import { activeRun, settings, verdict } from "../store.ts";

export const startBlocked = computed<string | null>(() => {
  const found = verdict.value;
  if (!found) return "wait until this machine was looked at";
  if (found.level === "none") return found.title;
  if (found.cause) return found.action.replace(/^\w/, (letter) => letter.toLowerCase()).replace(/\.$/, "");
  const run = activeRun.value;
  if (run?.active) return `stop the run “${run.name}” first${run.command === "align" ? ", in “The long tail”" : ""}`;
  return pictureProblem.value ?? startProblem(settings.value);
});
