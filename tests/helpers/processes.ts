// Starts the command line as a process of its own, as a user does, and follows its events (--json).

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { RunEvent } from "../../src/base/events.ts";
import { softwareDeviceBytes } from "../../src/platform/device_memory.ts";
import { ROOT } from "./files.ts";

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  events: RunEvent[];
  errors: string;
  /** Largest resident memory seen, and device memory of a software adapter; 0 where the system does not show them. */
  peak: { resident: number; device: number };
}

/** Runs `longtail ...words --json`; `onEvent` may send signals to the process. */
export function longtail(
  words: readonly string[],
  onEvent: (event: RunEvent, send: (signal: NodeJS.Signals) => void) => void = () => {},
): Promise<Ended> {
  const main = join(ROOT, "src/cli/main.ts");
  const program = ["run", "-A", "--no-check", "--config", join(ROOT, "deno.json"), main];
  const child = spawn(process.execPath, [...program, ...words, "--json"], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended: Ended = { code: null, signal: null, events: [], errors: "", peak: { resident: 0, device: 0 } };
  let rest = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const event = JSON.parse(line) as RunEvent;
      ended.events.push(event);
      if (event.kind === "phase") watch(child.pid!, ended.peak);
      // Not child.kill: Deno then reports that signal as the end of a process that handled it.
      onEvent(event, (signal) => process.kill(child.pid!, signal));
    }
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => (ended.errors += text));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ ...ended, code, signal }));
  });
}

function watch(processId: number, peak: Ended["peak"]): void {
  try {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${processId}/status`, "utf8"))?.[1] ?? 0;
    peak.resident = Math.max(peak.resident, 1024 * Number(kibibytes));
  } catch {
    // Another system, or the process has just ended.
  }
  peak.device = Math.max(peak.device, softwareDeviceBytes(processId) ?? 0);
}

/** Overrides under which the embedded experiment is seconds of work. */
export const SMALL_RUN = [
  "--adapter.difference_rank=0",
  "--align.batch=1",
  "--align.focus=2",
  "--align.guard.every=0",
  "--align.guard.items=2",
  "--align.rollout_steps=1",
  "--device.tuner=off",
  "--eval.batch=2",
  "--eval.head_items=0",
  "--eval.judge=none",
  "--eval.pictures=1",
  "--eval.steps=1",
  "--log.every=1",
  "--schedule.warmup=0",
];
