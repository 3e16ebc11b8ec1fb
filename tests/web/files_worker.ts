// The worker of files.test.ts: what it is told over messages it does with the page's own file stores. It can also stop for ever
// at a chosen call to the browser's storage, which is what a tab that dies at that call leaves behind.

import { newestCheckpoint, saveCheckpoint } from "../../src/training/checkpoint.ts";
import { AssetFiles, type DownloadProgress } from "../../src/web/files/assets.ts";
import { alone, isLocked, withRunLock } from "../../src/web/files/locks.ts";
import { OpfsFiles } from "../../src/web/files/opfs.ts";
import { runCases } from "./file_store_cases.ts";

function* filled(value: number): Generator<Uint8Array> {
  for (let i = 0; i < 3; i++) yield new Uint8Array(70_000).fill(value);
}

const checkpoint = (step: number) => ({
  step,
  groups: {
    weights: [{ name: "w", shape: [4], load: () => Float32Array.of(step, 1, 2, 3) }],
    moments: [{ name: "m", shape: [2], load: () => Float32Array.of(step, 1) }],
  },
  state: { at: step },
  identity: { config: {}, model: {} },
});

const FOLDER: Record<string, string> = { "manifest.json": "m", "a.bin": "a", "b.bin": "b", "deep/er/c": "c" };

interface Deed {
  before(files: OpfsFiles): Promise<void>;
  deed(files: OpfsFiles): Promise<unknown>;
  /** What is there, in a word; "old" and "new" are fine. */
  look(files: OpfsFiles): Promise<string>;
}

/** What may be cut off. */
const DEEDS: Record<string, Deed> = {
  write: {
    before: (files) => files.writeAtomic("x/file", filled(1)),
    deed: (files) => files.writeAtomic("x/file", filled(2)),
    async look(files) {
      const bytes = await files.readBytes("x/file");
      if (bytes.length !== 210_000) return `${bytes.length} bytes`;
      return bytes.every((b) => b === 1) ? "old" : bytes.every((b) => b === 2) ? "new" : "mixed";
    },
  },
  rename: {
    async before(files) {
      for (const [name, text] of Object.entries(FOLDER)) await files.writeAtomic(`x/from/${name}`, text);
    },
    deed: (files) => files.rename("x/from", "x/to"),
    async look(files) {
      const names = await files.list("x");
      for (const name of names) {
        for (const [file, text] of Object.entries(FOLDER))
          if ((await files.readText(`x/${name}/${file}`).catch(() => "")) !== text) return `${name} lacks ${file}`;
      }
      return names.join() === "from" ? "old" : names.join() === "to" ? "new" : `there are ${names.join()}`;
    },
  },
  checkpoint: {
    before: async (files) => void (await saveCheckpoint(files, "x/ckpt", checkpoint(100))),
    deed: (files) => saveCheckpoint(files, "x/ckpt", checkpoint(200)),
    async look(files) {
      const { newest, skipped } = await newestCheckpoint(files, "x/ckpt");
      const torn = skipped.filter(({ path }) => !path.endsWith(".partial"));
      if (torn.length > 0) return `${torn[0]!.path} is torn: ${torn[0]!.reason}`;
      return newest?.step === 100 ? "old" : newest?.step === 200 ? "new" : "none";
    },
  },
};

/** Counts every asynchronous call to the storage and never comes back from number `at`. */
function stopAt(at: number): { calls: number } {
  const counter = { calls: 0 };
  for (const kind of [FileSystemFileHandle, FileSystemDirectoryHandle]) {
    const proto = kind.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const name of [
      "getFileHandle",
      "getDirectoryHandle",
      "createSyncAccessHandle",
      "move",
      "removeEntry",
      "getFile",
    ]) {
      const real = proto[name];
      if (!real) continue;
      proto[name] = function (...args: unknown[]) {
        if (++counter.calls === at) {
          postMessage({ stopped: at });
          return new Promise(() => {});
        }
        return real.apply(this, args);
      };
    }
  }
  return counter;
}

let open: OpfsFiles | null = null;
const store = async (canMove?: boolean) => {
  open ??= await OpfsFiles.open(canMove === undefined ? {} : { canMove });
  return open;
};

/** Everything in the storage's own folder, which a store in order leaves empty. */
async function leftovers(): Promise<string[]> {
  const names: string[] = [];
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle(".longtail");
  for await (const name of folder.keys()) names.push(name);
  return names;
}

/** A worker that was ended lets go of its locks and files a moment later. */
async function othersGone(): Promise<void> {
  for (let looks = 0; looks < 1000 && (await navigator.locks.query()).held?.length; looks++)
    await new Promise((done) => setTimeout(done, 20));
}

const COMMANDS: Record<string, (...args: never[]) => Promise<unknown>> = {
  async empty() {
    if (!open) await othersGone();
    const root = await navigator.storage.getDirectory();
    const names: string[] = [];
    for await (const name of root.keys()) names.push(name);
    for (const name of names) await root.removeEntry(name, { recursive: true });
  },
  async cases(base: string, canMove: boolean) {
    const files = await store(canMove);
    const failures = await runCases(files, base);
    // A case that failed may have left a reader open, and its message is worth more than that.
    if (failures.length > 0) return failures;
    await files.remove(base);
    return await leftovers();
  },
  /** Prepares and does a deed up to call `at`; answers "done" where it has fewer calls. */
  async begin(name: string, at: number, canMove: boolean) {
    const files = await store(canMove);
    await DEEDS[name]!.before(files);
    stopAt(at);
    await DEEDS[name]!.deed(files);
    return "done";
  },
  async look(name: string, canMove: boolean) {
    const files = await store(canMove);
    return [await DEEDS[name]!.look(files), await leftovers()];
  },
  async lookAndEmpty(name: string, canMove: boolean) {
    await othersGone();
    const found = [await DEEDS[name]!.look(await store(canMove)), await leftovers()];
    await COMMANDS["empty"]!();
    return found;
  },
  async tear(path: string, text: string) {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle(path, { create: true });
    const stream = await file.createWritable();
    await stream.write(text);
    await stream.close();
  },
  append: async (path: string, text: string) => (await store()).append(path, text),
  text: async (path: string) => (await store()).readText(path),
  async write(path: string, bytes: number) {
    function* pieces() {
      for (let left = bytes; left > 0; left -= 1_000_000) yield new Uint8Array(Math.min(left, 1_000_000)).fill(7);
    }
    try {
      await (await store()).writeAtomic(path, pieces());
      return "written";
    } catch (error) {
      return `${(error as Error).message}`;
    }
  },
  async appendUntilFull(path: string) {
    const files = await store();
    const line = `${"x".repeat(9_999)}\n`;
    for (let count = 0; ; count++) {
      try {
        await files.append(path, line);
      } catch (error) {
        return [(error as { code: string }).code, (await files.readText(path)).length - count * line.length];
      }
    }
  },
  leftovers,
  async speed(bytes: number) {
    const files = await store();
    const content = new Uint8Array(bytes).fill(3);
    const times: Record<string, number> = {};
    const time = async (name: string, work: () => Promise<unknown>) => {
      const start = performance.now();
      await work();
      times[name] = Math.round(performance.now() - start);
    };
    await time("write", () => files.writeAtomic("speed", content));
    await time("readBytes", () => files.readBytes("speed"));
    const handle = await files.open("speed");
    await time("read in 64 KiB", async () => {
      for (let at = 0; at + 65536 <= bytes; at += 65536) await handle.read(at, 65536);
    });
    await handle.close();
    await time("checkpoint", () => saveCheckpoint(files, "speed-ckpt", checkpoint(1)));
    await time("1000 lines", async () => {
      for (let i = 0; i < 1000; i++) await files.append("speed.jsonl", '{"kind":"loss","value":0.123456789}\n');
    });
    await files.remove("speed");
    await files.remove("speed-ckpt");
    return times;
  },
  async warm(base: string, stored: boolean) {
    const seen: DownloadProgress[] = [];
    const warnings: string[] = [];
    const assets = new AssetFiles({
      base,
      store: stored ? await store() : null,
      alone,
      onDownload: (progress) => seen.push(progress),
      onWarning: ({ code, text }) => warnings.push(`${code} ${text}`),
    });
    const start = performance.now();
    try {
      await assets.warm("draw");
    } catch (error) {
      return { error: (error as Error).message };
    }
    const { groups, files } = await assets.manifest();
    const bytes = await Promise.all(groups["draw"]!.map(async (path) => (await assets.readBytes(path)).length));
    const right = groups["draw"]!.every((path, i) => files[path]!.bytes === bytes[i]);
    const fetched = new Set(seen.filter(({ cached }) => !cached).map(({ name }) => name)).size;
    const cached = seen.filter((progress) => progress.cached).length;
    return {
      fetched,
      cached,
      right,
      warnings,
      ms: Math.round(performance.now() - start),
      pruned: await assets.prune(),
    };
  },
  async lock(name: string) {
    try {
      await withRunLock(name, async () => {
        postMessage({ locked: name });
        await new Promise(() => {});
      });
    } catch (error) {
      return (error as { code: string }).code;
    }
  },
  locked: async (name: string) => isLocked(name),
};

addEventListener("message", async ({ data }: MessageEvent<{ id: number; name: string; args: never[] }>) => {
  try {
    postMessage({ id: data.id, result: await COMMANDS[data.name]!(...data.args) });
  } catch (error) {
    postMessage({ id: data.id, error: `${(error as Error).name}: ${(error as Error).message}` });
  }
});
