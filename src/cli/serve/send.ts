// How a file leaves the server: with a type from a short list, in ranges where they are asked for, and not at all where the
// browser has it already. Nothing that lies in a run folder can act on the page: no script of it runs in the page's name.

import { createReadStream } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname } from "node:path";
import type { FoundFile } from "./inside.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".csv": "text/plain; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".ico": "image/x-icon",
  ".jpeg": "image/jpeg",
  ".jpg": "image/jpeg",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".jsonl": "text/plain; charset=utf-8",
  ".md": "text/plain; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".toml": "text/plain; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
  ".webmanifest": "application/manifest+json",
  ".webp": "image/webp",
  ".woff2": "font/woff2",
};

/** Headers of every answer. */
export const COMMON_HEADERS: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** The page's own files: scripts, styles and requests of this origin alone, and the isolation that its workers want. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; " +
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "credentialless",
};

/** Files of runs: shown at most, in an origin of their own; a report has its styles and pictures inside. */
export const RUN_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy":
    "sandbox allow-popups allow-downloads; default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

/** Sends plain text. */
export function sendText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    ...COMMON_HEADERS,
    ...RUN_HEADERS,
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
  });
  response.end(`${text}\n`);
}

/** Answers that there is nothing, where that is no mistake. */
export function sendNothing(response: ServerResponse): void {
  response.writeHead(204, { ...COMMON_HEADERS, "Cache-Control": "no-store" });
  response.end();
}

/** Sends a value as JSON that is not kept. */
export function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, {
    ...COMMON_HEADERS,
    ...RUN_HEADERS,
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
  });
  response.end(JSON.stringify(value));
}

/** One range of a file: first and last byte. */
export interface ByteRange {
  first: number;
  last: number;
}

/**
 * The range of a Range header: null where the whole file is to be sent (no header, or several ranges, which a server may
 * answer with everything), "unsatisfiable" where the file ends before it.
 */
export function byteRange(header: string | undefined, size: number): ByteRange | "unsatisfiable" | null {
  const match = header === undefined ? null : /^bytes=(\d*)-(\d*)$/.exec(header.trim());
  if (!match || (match[1] === "" && match[2] === "")) return null;
  if (match[1] === "") {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? "unsatisfiable" : { first: size - length, last: size - 1 };
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== "" && Number(match[2]) < first) return null;
  return first >= size ? "unsatisfiable" : { first, last };
}

/** A file's state, so that a browser asks again only for what changed; weak, because it is no digest of the content. */
export const entityTag = (file: FoundFile): string =>
  `W/"${file.size.toString(36)}-${Math.round(file.modified).toString(36)}"`;

/** Sends a file or the part of it that was asked for; `headers` are those of the kind of file. */
export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  file: FoundFile,
  headers: Readonly<Record<string, string>>,
): void {
  const tag = entityTag(file);
  const type = TYPES[extname(file.path).toLowerCase()];
  const common = { ...COMMON_HEADERS, ...headers, ETag: tag, "Cache-Control": headers["Cache-Control"] ?? "no-cache" };
  const known = (request.headers["if-none-match"] ?? "").split(",").map((one) => one.trim());
  if (known.includes(tag)) {
    response.writeHead(304, common);
    response.end();
    return;
  }
  // A range of another state of the file would be glued to the wrong bytes.
  const condition = request.headers["if-range"];
  const range = condition && condition !== tag ? null : byteRange(request.headers.range, file.size);
  if (range === "unsatisfiable") {
    response.writeHead(416, { ...common, "Content-Range": `bytes */${file.size}` });
    response.end();
    return;
  }
  const { first, last } = range ?? { first: 0, last: file.size - 1 };
  response.writeHead(range ? 206 : 200, {
    ...common,
    "Content-Type": type ?? "application/octet-stream",
    "Content-Length": String(last - first + 1),
    "Accept-Ranges": "bytes",
    ...(type ? {} : { "Content-Disposition": "attachment" }),
    ...(range ? { "Content-Range": `bytes ${first}-${last}/${file.size}` } : {}),
  });
  if (request.method === "HEAD" || last < first) {
    response.end();
    return;
  }
  const stream = createReadStream(file.path, { start: first, end: last });
  // A file that vanishes or shrinks after its head was sent can only be cut off.
  stream.on("error", () => response.destroy());
  response.on("close", () => stream.destroy());
  stream.pipe(response);
}
