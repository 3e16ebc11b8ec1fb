// Why training cannot start now, as the end of a sentence; the Start button says it.

import { computed } from "@preact/signals";
import { pictureProblem } from "../pictures/problem.ts";
import { startProblem } from "../settings.ts";
import { activeRun, settings, verdict } from "../store.ts";

export const startBlocked = computed<string | null>(() => {
  const found = verdict.value;
  if (!found) return "wait until this machine was looked at";
  if (found.level === "none" || found.cause) return found.title;
  const run = activeRun.value;
  if (run?.active) return `stop the run “${run.name}” first`;
  return pictureProblem.value ?? startProblem(settings.value);
});
