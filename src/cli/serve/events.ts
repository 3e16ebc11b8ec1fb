// A run's log as Server-Sent Events: everything so far in large batches, then new lines within a quarter of a second of
// their being written. Each batch carries its place as id, so a browser that reconnects gets what it missed and nothing
// twice (HTML Living Standard, server-sent events).

import * as fs from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { LogReader } from "./follow_log.ts";
import { fileInside } from "./inside.ts";
import { COMMON_HEADERS } from "./send.ts";

export interface FollowTimes {
  /** Milliseconds between two looks at the log. */
  look: number;
  /** Milliseconds after which a silent connection says that it lives. */
  beat: number;
}

export const FOLLOW_TIMES: FollowTimes = { look: 250, beat: 15_000 };

/**
 * Sends a run's events until the reader goes away or the server stops. Events: `lines` (JSON lines, id = place), `reset`
 * (forget what came before), `now` (once: all lines so far were sent), `state` (run.json's text, whenever it changes).
 */
export async function sendEvents(
  request: IncomingMessage,
  response: ServerResponse,
  folder: string,
  signal: AbortSignal,
  times: FollowTimes = FOLLOW_TIMES,
): Promise<void> {
  const place = request.headers["last-event-id"];
  let open = true;
  response.on("close", () => (open = false));
  response.writeHead(200, {
    ...COMMON_HEADERS,
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    // Proxies that collect answers would hold the lines back.
    "X-Accel-Buffering": "no",
  });
  // A stream has an end only when its reader goes away, and who asks for the head alone waits for the end.
  if (request.method === "HEAD") return void response.end();
  response.write("retry: 1000\n\n");
  let reader: LogReader | null = null;
  let state = "";
  let caughtUp = false;
  let said = performance.now();
  const say = (text: string) => {
    said = performance.now();
    return response.write(text) || drained(response, () => open && !signal.aborted);
  };
  while (open && !signal.aborted) {
    // The state is read before the log: a run's last lines are written before its end is recorded.
    const now = await stateOf(folder);
    const log = await fileInside(folder, ["log.jsonl"]);
    reader ??= log ? new LogReader(log.path, typeof place === "string" ? place : undefined) : null;
    for (let batch = await reader?.next(); batch && open && !signal.aborted; batch = await reader?.next()) {
      if (batch.reset) await say("event: reset\ndata: the log was written anew\n\n");
      if (batch.text) await say(message("lines", batch.text, batch.place));
    }
    if (!caughtUp) await say("event: now\ndata: these were all lines so far\n\n");
    caughtUp = true;
    if (open && now !== null && now !== state) {
      state = now;
      await say(message("state", state));
    }
    if (performance.now() - said >= times.beat) await say(": still here\n\n");
    await pause(times.look, signal);
  }
  response.end();
}

/** One event; every line of its text becomes a data line. */
export function message(event: string, text: string, id?: string): string {
  // Carriage returns would end a data line of the protocol; JSON never has them bare.
  const data = text.replace(/\r\n?/g, "\n").replace(/\n+$/, "").split("\n");
  return `event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}${data.map((line) => `data: ${line}\n`).join("")}\n`;
}

async function stateOf(folder: string): Promise<string | null> {
  const file = await fileInside(folder, ["run.json"]);
  if (!file || file.size > 65_536) return null;
  try {
    const text = await fs.readFile(file.path, "utf8");
    JSON.parse(text);
    return text;
  } catch {
    return null;
  }
}

/** A reader that is slow is waited for, so that a long log does not pile up in memory. */
async function drained(response: ServerResponse, open: () => boolean): Promise<void> {
  while (open() && response.writableNeedDrain) await new Promise((resolve) => setTimeout(resolve, 20));
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
