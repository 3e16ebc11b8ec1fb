// How the state of a run is said and shown, the same in every mode.

import type { RunStatus } from "../protocol.ts";
import type { BadgeKind } from "./basic.tsx";

export const STATUS: Readonly<Record<RunStatus, [BadgeKind, string]>> = {
  starting: ["live", "Preparing"],
  running: ["live", "Running"],
  paused: ["warn", "Paused"],
  stopping: ["warn", "Saving"],
  finished: ["good", "Finished"],
  stopped: ["plain", "Stopped, can be resumed"],
  failed: ["bad", "Failed"],
};
