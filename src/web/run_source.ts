// Where a run is read from: the browser's storage, `longtail serve`, a folder that was dropped, or the recorded run that comes
// along. All have the layout that the command line writes, so every panel works with all of them.

import type { LogLine } from "./protocol.ts";
import { LogParser } from "./sources/log_parser.ts";

export interface RunSource {
  readonly name: string;
  /** Where it comes from, for people: "this browser", "serve", "folder", "recorded". */
  readonly origin: "browser" | "served" | "folder" | "recorded";
  /** Content of a file of the run folder, `report.json`; null where there is none. */
  text(path: string): Promise<string | null>;
  /** A file as it is, `samples/step-000000/00-seed1.png`; null where there is none. */
  blob(path: string): Promise<Blob | null>;
  /**
   * Calls `take` with all lines so far and, where the run goes on, with every new batch; returns the way to stop. `ended` is
   * called where no more will come.
   */
  follow(take: (lines: LogLine[]) => void, ended?: () => void): () => void;
}

/** Lines of a log.jsonl text; torn and foreign lines and kinds that the panels do not know are left out. */
export function parseLog(text: string): LogLine[] {
  const parser = new LogParser();
  return [...parser.push(text), ...parser.finish()];
}
