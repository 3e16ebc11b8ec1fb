// A small static server for tests of the page, as any static host is one: right types, nothing cached unless asked, and
// on demand the misbehaviour of a real network (slow, cut off, wrong, gone).

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { afterAll } from "vitest";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".ico": "image/x-icon",
  ".txt": "text/plain; charset=utf-8",
  ".toml": "text/plain; charset=utf-8",
  ".jsonl": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
  ".zip": "application/zip",
};

/** What to do with one request instead of answering it well. */
export interface Trouble {
  /** Milliseconds before the answer. */
  delay?: number;
  /** This status and no body. */
  status?: number;
  /** The connection breaks after so many bytes of the body. */
  cutAfter?: number;
  /** Another body. */
  body?: string | Uint8Array;
}

export interface ServeOptions {
  headers?: Record<string, string>;
  /** COOP and COEP, so that the page is cross-origin isolated. */
  isolated?: boolean;
  /** Looks at every path (`/assets.json`) and may make trouble; can be changed while the server runs. */
  trouble?: (path: string) => Trouble | null | undefined;
}

export interface Served {
  /** With a slash at its end. */
  url: string;
  /** Paths asked for so far, in order. */
  requests: string[];
  options: ServeOptions;
  close(): Promise<void>;
}

const open = new Set<Served>();
afterAll(async () => {
  for (const served of [...open]) await served.close();
});

/** Serves `folder` on a free port of this machine; closed by itself after the file's last test. */
export async function serveFolder(folder: string, options: ServeOptions = {}): Promise<Served> {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  const requests: string[] = [];

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = decodeURIComponent(new URL(request.url!, "http://x").pathname);
    requests.push(path);
    const trouble = served.options.trouble?.(path) ?? {};
    if (trouble.delay) await new Promise((resolve) => setTimeout(resolve, trouble.delay));
    response.setHeader("Cache-Control", "no-store");
    if (served.options.isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    for (const [name, value] of Object.entries(served.options.headers ?? {})) response.setHeader(name, value);
    if (trouble.status) {
      response.writeHead(trouble.status).end();
      return;
    }
    const file = join(folder, normalize(path.endsWith("/") ? `${path}index.html` : path));
    const facts = await stat(file).catch(() => null);
    if (!facts?.isFile() && trouble.body === undefined) {
      response.writeHead(404, { "Content-Type": "text/plain" }).end("not found");
      return;
    }
    response.setHeader("Content-Type", TYPES[extname(file).toLowerCase()] ?? "application/octet-stream");
    if (trouble.body !== undefined) {
      response.writeHead(200).end(trouble.body);
      return;
    }
    response.setHeader("Content-Length", facts!.size);
    response.writeHead(200);
    if (request.method === "HEAD") response.end();
    else if (trouble.cutAfter !== undefined) {
      const start = (await readFile(file)).subarray(0, trouble.cutAfter);
      response.write(start, () => response.socket?.destroy());
    } else
      createReadStream(file)
        // A test that ends takes the folder away under a page that still asks.
        .on("error", () => response.destroy())
        .pipe(response);
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const served: Served = {
    url: `http://127.0.0.1:${port}/`,
    requests,
    options: { ...options },
    close() {
      open.delete(served);
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
  open.add(served);
  return served;
}
