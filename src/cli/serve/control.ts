// Words from the page to a run, written into its CMD file as a user would by hand. Off unless asked for, and then only
// for who knows the token that was printed at the start, from the page that this server serves.

import { randomBytes, timingSafeEqual } from "node:crypto";
import * as fs from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";

export const CONTROL_WORDS: readonly string[] = ["pause", "resume", "save", "sample", "stop"];

/** No command is longer. */
const LONGEST_BODY = 1000;

/** Why a command was not taken. */
export interface Refusal {
  status: number;
  why: string;
}

export const newToken = (): string => randomBytes(18).toString("base64url");

/** Whether the request may command at all; null where it may. `token` is null where the server takes no commands. */
export function refusalOf(request: IncomingMessage, token: string | null): Refusal | null {
  if (token === null) return { status: 403, why: "this server takes no commands; start it with --control" };
  const { origin, host } = request.headers;
  const site = request.headers["sec-fetch-site"];
  if (origin !== undefined && origin !== `http://${host}`) return { status: 403, why: "another page asked" };
  if (site !== undefined && site !== "same-origin" && site !== "none")
    return { status: 403, why: "another page asked" };
  if (!(request.headers["content-type"] ?? "").startsWith("application/json"))
    return { status: 415, why: "the command is to be JSON" };
  const given = Buffer.from(String(request.headers["x-longtail-token"] ?? ""));
  const wanted = Buffer.from(token);
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    return { status: 401, why: "the token is not the one that was printed at the start" };
  return null;
}

/** The word of the body `{"word": "pause"}`, or why there is none. */
export async function wordOf(request: IncomingMessage): Promise<string | Refusal> {
  let body = "";
  for await (const chunk of request) {
    body += String(chunk);
    if (body.length > LONGEST_BODY) return { status: 413, why: "the command is too long" };
  }
  let word: unknown;
  try {
    word = (JSON.parse(body) as { word?: unknown } | null)?.word;
  } catch {
    // Told below.
  }
  return typeof word === "string" && CONTROL_WORDS.includes(word)
    ? word
    : { status: 400, why: `word is to be one of ${CONTROL_WORDS.join(", ")}` };
}

/** Writes the word behind those that the run has not read yet. */
export async function writeWord(folder: string, word: string): Promise<void> {
  // A link named CMD could point anywhere, and appending would follow it.
  const path = join(folder, "CMD");
  const facts = await fs.lstat(path).catch(() => null);
  if (facts && !facts.isFile()) throw new Error("CMD is not a file");
  await fs.appendFile(path, `${word}\n`);
}
