// The server of `longtail serve`: the built page, and read-only what lies in the folder of runs. It is meant for one's own
// machine or a tunnel to it: no accounts, no TLS; instead it answers only under names of this machine, so that a page
// elsewhere that points its own name here (DNS rebinding) gets nothing.

import * as fs from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { refusalOf, wordOf, writeWord } from "./control.ts";
import { FOLLOW_TIMES, type FollowTimes, sendEvents } from "./events.ts";
import { fileInside, folderInside, plainParts } from "./inside.ts";
import { listRuns, stateOf } from "./run_list.ts";
import { COMMON_HEADERS, PAGE_HEADERS, RUN_HEADERS, sendFile, sendJson, sendNothing, sendText } from "./send.ts";

export interface ServeOptions {
  /** Folder of the built page. */
  page: string;
  /** Folder of runs. */
  runs: string;
  /** The name or address that is listened on. */
  host: string;
  /** Of commands; null takes none. */
  token: string | null;
  /** Ends all open event streams. */
  signal: AbortSignal;
  times?: FollowTimes;
}

/** Tells the page that this server is behind it. */
const SERVED_MARK = '<meta name="longtail-serve" content="1">';

/** The server, not listening yet. */
export function pageServer(options: ServeOptions): Server {
  return createServer((request, response) => {
    answer(request, response, options).catch(() => {
      if (!response.headersSent) sendText(response, 500, "the server failed at this request");
      else response.destroy();
    });
  });
}

/** Whether a Host header names this machine: an address, localhost, the machine's own name, or what was listened on. */
export function isOwnHost(header: string | undefined, host: string): boolean {
  const name = (header ?? "")
    .replace(/:\d*$/, "")
    .replace(/^\[|\]$/g, "")
    .toLowerCase();
  if (name === "") return false;
  return isIP(name) !== 0 || [`localhost`, host.toLowerCase(), hostname().toLowerCase()].includes(name);
}

async function answer(request: IncomingMessage, response: ServerResponse, options: ServeOptions): Promise<void> {
  if (!isOwnHost(request.headers.host, options.host))
    return sendText(response, 421, "this server answers under its own names only");
  // The path as it was sent: a URL parser would already have resolved its dots.
  const path = (request.url ?? "").split(/[?#]/, 1)[0]!;
  if (!path.startsWith("/")) return sendText(response, 400, "no such path");
  const parts = path === "/" ? [] : plainParts(path.slice(1));
  if (!parts) return sendText(response, 404, "there is no such file");
  if (parts[0] === "api") return await answerApi(request, response, options, parts.slice(1));
  if (!isReading(request)) return refuseMethod(response, "GET, HEAD");
  await sendPage(request, response, options, parts.length === 0 ? ["index.html"] : parts);
}

async function answerApi(
  request: IncomingMessage,
  response: ServerResponse,
  options: ServeOptions,
  [area, name, part, ...rest]: string[],
): Promise<void> {
  if (area !== "runs") return sendText(response, 404, "there is no such request");
  if (name === undefined) {
    if (!isReading(request)) return refuseMethod(response, "GET, HEAD");
    return sendJson(response, { runs: await listRuns(options.runs), control: options.token !== null, now: Date.now() });
  }
  const folder = await folderInside(options.runs, name);
  if (!folder) return sendText(response, 404, "there is no such run");
  if (part === "command" && rest.length === 0) {
    if (request.method !== "POST") return refuseMethod(response, "POST");
    return await command(request, response, folder, options.token);
  }
  if (!isReading(request)) return refuseMethod(response, "GET, HEAD");
  if (part === "events" && rest.length === 0)
    return await sendEvents(request, response, folder, options.signal, options.times ?? FOLLOW_TIMES);
  const file = part === "files" ? await fileInside(folder, rest) : null;
  // Not every run has every file, and a browser writes each 404 into its console as an error.
  if (!file && part === "files" && /[?&]optional\b/.test(request.url ?? "")) return sendNothing(response);
  if (!file) return sendText(response, 404, "there is no such file");
  sendFile(request, response, file, RUN_HEADERS);
}

async function command(
  request: IncomingMessage,
  response: ServerResponse,
  folder: string,
  token: string | null,
): Promise<void> {
  const refusal = refusalOf(request, token);
  if (refusal) return sendText(response, refusal.status, refusal.why);
  const word = await wordOf(request);
  if (typeof word !== "string") return sendText(response, word.status, word.why);
  const state = await stateOf(folder);
  // A word that nobody takes would be obeyed by the run when it is resumed another day.
  if (state && state !== "running") return sendText(response, 409, `the run is ${state}: nobody hears the word`);
  await writeWord(folder, word);
  sendJson(response, { word });
}

async function sendPage(
  request: IncomingMessage,
  response: ServerResponse,
  options: ServeOptions,
  parts: string[],
): Promise<void> {
  const file = await fileInside(options.page, parts);
  if (!file) return sendText(response, 404, "there is no such file");
  if (parts.length === 1 && parts[0] === "index.html") {
    const text = (await fs.readFile(file.path, "utf8")).replace(/<head>/i, `<head>${SERVED_MARK}`);
    response.writeHead(200, {
      ...COMMON_HEADERS,
      ...PAGE_HEADERS,
      "Content-Type": "text/html; charset=utf-8",
      "Cache-Control": "no-cache",
    });
    response.end(request.method === "HEAD" ? undefined : text);
    return;
  }
  // Vite puts a hash of the content into these names.
  const lasting: Record<string, string> =
    parts[0] === "assets" ? { "Cache-Control": "public, max-age=31536000, immutable" } : {};
  sendFile(request, response, file, { ...PAGE_HEADERS, ...lasting });
}

const isReading = ({ method }: IncomingMessage) => method === "GET" || method === "HEAD";

function refuseMethod(response: ServerResponse, allowed: string): void {
  response.setHeader("Allow", allowed);
  sendText(response, 405, "this cannot be done here");
}

/** Whether a page lies in the folder. */
export const hasPage = async (page: string): Promise<boolean> =>
  (await fs.stat(join(page, "index.html")).catch(() => null))?.isFile() ?? false;
