// A model hub on this machine for tests: its interface, files with ranges, and a store on another port to which large files
// are redirected. Faults are played one request after the other.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenRequest {
  server: "hub" | "store";
  path: string;
  range: string | null;
  token: string | null;
}

/** What happens to one request for a file instead of the right answer. */
export type Fault =
  | { kind: "status"; status: number; headers?: Record<string, string> }
  /** Sends so many bytes, then cuts the connection. */
  | { kind: "cut"; after: number }
  /** Sends the whole file whatever range is asked for. */
  | { kind: "no ranges" }
  /** Sends other bytes of the right length. */
  | { kind: "wrong bytes" }
  /** Sends so many bytes and then nothing, with the connection open. */
  | { kind: "silence"; after: number }
  /** Waits so long between pieces. */
  | { kind: "slow"; piece: number; pauseMs: number };

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const LARGE = 1000;

export class FakeHub {
  readonly repository: string;
  endpoint = "";
  readonly files = new Map<string, Uint8Array>();
  readonly seen: SeenRequest[] = [];
  /** Faults of files by path, each used once. */
  readonly faults = new Map<string, Fault[]>();
  /** An answer to every request for the model, where one is set. */
  refusal: { status: number; headers: Record<string, string> } | null = null;
  /** Only for files: the listing of a gated model is open. */
  fileRefusal: FakeHub["refusal"] = null;
  readonly #hub: Server;
  readonly #store: Server;

  private constructor(repository: string) {
    this.repository = repository;
    this.#hub = createServer((question, answer) => this.#answerHub(question, answer));
    this.#store = createServer((question, answer) => this.#answerStore(question, answer));
  }

  static async start(files: Record<string, Uint8Array | string>, repository = "owner/model"): Promise<FakeHub> {
    const hub = new FakeHub(repository);
    for (const [path, data] of Object.entries(files)) {
      hub.files.set(path, typeof data === "string" ? new TextEncoder().encode(data) : data);
    }
    for (const server of [hub.#hub, hub.#store]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    hub.endpoint = `http://127.0.0.1:${(hub.#hub.address() as AddressInfo).port}`;
    return hub;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#store]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Requests for a file's bytes, in order. */
  downloads(path: string): SeenRequest[] {
    return this.seen.filter(
      (request) => request.server === (this.isLarge(path) ? "store" : "hub") && request.path.endsWith(path),
    );
  }

  isLarge(path: string): boolean {
    return this.files.get(path)!.length >= LARGE;
  }

  hashOf(path: string): string {
    const bytes = this.files.get(path)!;
    if (this.isLarge(path)) return createHash("sha256").update(bytes).digest("hex");
    return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  }

  #note(server: SeenRequest["server"], question: IncomingMessage): string {
    const path = decodeURIComponent(new URL(question.url!, "http://hub").pathname);
    const { range = null, authorization = null } = question.headers;
    this.seen.push({ server, path, range, token: authorization });
    return path;
  }

  #answerHub(question: IncomingMessage, answer: ServerResponse): void {
    const path = this.#note("hub", question);
    const fail = (status: number, headers: Record<string, string> = {}) => answer.writeHead(status, headers).end();
    const known = path.startsWith(`/api/models/${this.repository}/`) || path.startsWith(`/${this.repository}/`);
    if (!known) return void fail(404, { "x-error-code": "RepoNotFound" });
    if (this.refusal) return void fail(this.refusal.status, this.refusal.headers);
    const json = (value: unknown, headers: Record<string, string> = {}) =>
      answer.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
    const inner = path.replace(`/api/models/${this.repository}/`, "");
    if (inner.startsWith("revision/")) {
      if (!["main", "v1", COMMIT].includes(inner.slice(9)))
        return void fail(404, { "x-error-code": "RevisionNotFound" });
      return void json({ _id: "1", id: this.repository, sha: COMMIT });
    }
    if (inner.startsWith("tree/")) {
      const entries = [...this.files].map(([file, bytes]) => ({
        type: "file",
        path: file,
        size: bytes.length,
        oid: this.isLarge(file) ? "f".repeat(40) : this.hashOf(file),
        ...(this.isLarge(file) ? { lfs: { oid: this.hashOf(file), size: bytes.length, pointerSize: 130 } } : {}),
      }));
      // In two pages, as the hub does with many files.
      const second = new URL(question.url!, this.endpoint).searchParams.has("cursor");
      const half = Math.ceil(entries.length / 2);
      const next = `<${this.endpoint}${question.url}&cursor=2>; rel="next"`;
      return void json(second ? entries.slice(half) : entries.slice(0, half), second ? {} : { link: next });
    }
    const file = path.replace(`/${this.repository}/resolve/${COMMIT}/`, "");
    if (this.fileRefusal) return void fail(this.fileRefusal.status, this.fileRefusal.headers);
    if (!this.files.has(file)) return void fail(404, { "x-error-code": "EntryNotFound" });
    if (!this.isLarge(file)) return void this.#send(file, question, answer);
    const place = `http://127.0.0.1:${(this.#store.address() as AddressInfo).port}/blobs/${file}`;
    answer.writeHead(302, { location: place, "x-linked-size": String(this.files.get(file)!.length) }).end();
  }

  #answerStore(question: IncomingMessage, answer: ServerResponse): void {
    this.#send(this.#note("store", question).replace("/blobs/", ""), question, answer);
  }

  #send(file: string, question: IncomingMessage, answer: ServerResponse): void {
    const fault = this.faults.get(file)?.shift();
    if (fault?.kind === "status") return void answer.writeHead(fault.status, fault.headers).end();
    let bytes = this.files.get(file)!;
    if (fault?.kind === "wrong bytes") bytes = bytes.map((byte) => byte ^ 0xff);
    const first = Number(/^bytes=(\d+)-/.exec(question.headers.range ?? "")?.[1] ?? -1);
    const ranged = first >= 0 && fault?.kind !== "no ranges";
    if (ranged && first >= bytes.length) return void answer.writeHead(416).end();
    const body = ranged ? bytes.subarray(first) : bytes;
    answer.writeHead(ranged ? 206 : 200, {
      "content-length": body.length,
      ...(ranged ? { "content-range": `bytes ${first}-${bytes.length - 1}/${bytes.length}` } : {}),
    });
    if (fault?.kind === "cut")
      answer.write(body.subarray(0, fault.after), () => setTimeout(() => answer.destroy(), 30));
    else if (fault?.kind === "silence") answer.write(body.subarray(0, fault.after));
    else if (fault?.kind === "slow") void trickle(answer, body, fault.piece, fault.pauseMs);
    else answer.end(body);
  }
}

async function trickle(answer: ServerResponse, body: Uint8Array, piece: number, pauseMs: number): Promise<void> {
  for (let at = 0; at < body.length && !answer.destroyed; at += piece) {
    answer.write(body.subarray(at, at + piece));
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  answer.end();
}
