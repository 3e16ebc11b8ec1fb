// The list of what comes with the page, and one of its files on the way in: unpacked where it was packed, and compared in size
// and SHA-256 with what the list says before its last byte is passed on.

import { LongtailError } from "../../base/errors.ts";
import { Sha256 } from "../../base/hash.ts";

export interface AssetEntry {
  /** Address below the page's folder. */
  file: string;
  /** Size and SHA-256 of the content as it is read. */
  bytes: number;
  sha256: string;
  /** Bytes that are sent. */
  transfer: number;
  /** How `file` is packed. The page unpacks it: hosts are not asked to declare it. */
  encoding?: "gzip";
}

export interface AssetManifest {
  version: 1;
  /** By the path that the command line has them at. */
  files: Record<string, AssetEntry>;
  /** Paths that are fetched together: "draw" for a first picture. */
  groups: Record<string, string[]>;
}

/** @throws E-FILE-153 the text is not the list of this page */
export function readManifest(text: string): AssetManifest {
  try {
    const manifest = JSON.parse(text) as Partial<AssetManifest> | null;
    if (manifest?.version === 1 && manifest.files && manifest.groups) return manifest as AssetManifest;
  } catch {
    // Said below; a host that answers everything with its front page comes here too.
  }
  throw new LongtailError("E-FILE-153", {
    what: "the list of the page's files cannot be read",
    where: "assets.json",
    fix: "reload the page; if it stays, put up the whole build again",
  });
}

/** Milliseconds between two reports of progress. */
const SHOWN_MS = 100;

/** What arrived is not what the list says; asking again may help. */
export class Broken extends Error {}

/** The content of an answer in pieces. @throws Broken before its end where it is not what `entry` says. */
export async function* streamAsset(
  response: Response,
  entry: AssetEntry,
  progress: (received: number) => void,
): AsyncGenerator<Uint8Array> {
  const hash = new Sha256();
  let size = 0;
  let held: Uint8Array | null = null;
  for await (const piece of unpacked(arriving(response, progress), entry.encoding)) {
    // Nothing announced is this long; stop before the storage is filled with it.
    if (size + piece.length > entry.bytes) throw new Broken(`more than the ${entry.bytes} bytes announced arrived`);
    size += piece.length;
    hash.update(piece);
    // One piece is held back, so that a wrong file is never passed on whole.
    if (held) yield held;
    held = piece;
  }
  if (size !== entry.bytes) throw new Broken(`${size} of ${entry.bytes} bytes arrived`);
  if (hash.hex() !== entry.sha256) throw new Broken("its SHA-256 is another");
  if (held) yield held;
}

async function* arriving(response: Response, progress: (received: number) => void): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = response.body.getReader();
  let received = 0;
  let shown = performance.now();
  progress(0);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return progress(received);
      received += value.length;
      if (performance.now() - shown >= SHOWN_MS) {
        shown = performance.now();
        progress(received);
      }
      yield value;
    }
  } catch (error) {
    throw new Broken(`the connection broke off: ${(error as Error).message}`);
  } finally {
    // Where the reader of this stream stopped early, the rest is not fetched.
    await reader.cancel().catch(() => {});
  }
}

async function* unpacked(pieces: AsyncGenerator<Uint8Array>, encoding?: "gzip"): AsyncGenerator<Uint8Array> {
  if (encoding === undefined) return yield* pieces;
  let first = new Uint8Array(0);
  while (first.length < 2) {
    const { done, value } = await pieces.next();
    if (done) break;
    first = Uint8Array.from([...first, ...value]);
  }
  // Some hosts declare packed files as such, and then the browser has unpacked it already.
  if (first[0] !== 0x1f || first[1] !== 0x8b) {
    yield first;
    return yield* pieces;
  }
  let waiting: Uint8Array | null = first;
  let failure: unknown = null;
  const packed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const next: IteratorResult<Uint8Array> = waiting ? { done: false, value: waiting } : await pieces.next();
        waiting = null;
        if (next.done) controller.close();
        else controller.enqueue(next.value as Uint8Array<ArrayBuffer>);
      } catch (error) {
        failure = error;
        controller.error(error);
      }
    },
    async cancel() {
      await pieces.return(undefined);
    },
  });
  const reader = packed.pipeThrough(new DecompressionStream("gzip")).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw failure ?? new Broken(`it cannot be unpacked: ${(error as Error).message}`);
  } finally {
    await reader.cancel().catch(() => {});
  }
}
