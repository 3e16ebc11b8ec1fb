// Takes chosen lines out of what native code prints to stderr while a piece of work runs. Dawn writes its start-up
// warnings straight to file descriptor 2, where no JavaScript hook sees them, so the descriptor itself is put aside.

import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The C functions used, as Deno's foreign function interface gives them. */
interface LibC {
  symbols: {
    dup(descriptor: number): number;
    dup2(from: number, to: number): number;
    close(descriptor: number): number;
    mkstemp(template: Uint8Array): number;
    write(descriptor: number, bytes: Uint8Array, length: bigint): bigint;
  };
  close(): void;
}

interface ForeignFunctions {
  build: { os: string };
  dlopen(library: string, symbols: Record<string, { parameters: string[]; result: string }>): LibC;
}

function openLibC(): LibC | null {
  const deno = (globalThis as unknown as { Deno?: ForeignFunctions }).Deno;
  const library = deno && { linux: "libc.so.6", darwin: "libSystem.B.dylib" }[deno.build.os];
  if (!library) return null;
  try {
    return deno.dlopen(library, {
      dup: { parameters: ["i32"], result: "i32" },
      dup2: { parameters: ["i32", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
      mkstemp: { parameters: ["buffer"], result: "i32" },
      write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    });
  } catch {
    return null;
  }
}

const STDERR = 2;

// Two pieces of work at once would put each other's stand-in aside, so they go one after the other.
let last: Promise<unknown> = Promise.resolve();

/**
 * Runs `work` with stderr put aside, and afterwards writes everything that was printed there except the lines for which
 * `drop` answers true. Where the descriptor cannot be reached (Node, Windows, no permission) `work` simply runs.
 */
export function quietNativeStderr<T>(work: () => Promise<T>, drop: (line: string) => boolean): Promise<T> {
  const next = () => runAside(work, drop);
  const result = last.then(next, next);
  last = result;
  return result;
}

async function runAside<T>(work: () => Promise<T>, drop: (line: string) => boolean): Promise<T> {
  const libc = openLibC();
  if (!libc) return await work();
  const { dup, dup2, close, mkstemp, write } = libc.symbols;
  // mkstemp fills the X's in place and wants the closing zero byte of a C string.
  const template = new TextEncoder().encode(`${join(tmpdir(), "longtail-stderr-XXXXXX")}\0`);
  const aside = mkstemp(template);
  const saved = aside < 0 ? -1 : dup(STDERR);
  if (saved < 0) {
    if (aside >= 0) close(aside);
    libc.close();
    return await work();
  }
  dup2(aside, STDERR);
  try {
    return await work();
  } finally {
    dup2(saved, STDERR);
    close(saved);
    close(aside);
    const path = new TextDecoder().decode(template.subarray(0, -1));
    const printed = readFileSync(path, "utf8");
    rmSync(path, { force: true });
    const kept = printed.split(/(?<=\n)/).filter((line) => line && !drop(line));
    const bytes = new TextEncoder().encode(kept.join(""));
    if (bytes.length > 0) write(STDERR, bytes, BigInt(bytes.length));
    libc.close();
  }
}
