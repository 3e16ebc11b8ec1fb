// What every file store keeps to, as cases that run anywhere: on a disk, in memory, and in a worker of a real browser. Each case
// gets a store and an empty folder in it, and throws where the store does otherwise.

import type { FileStore } from "../../src/base/files.ts";

export interface Case {
  name: string;
  run(files: FileStore, folder: string): Promise<void>;
}

function equal(found: unknown, wanted: unknown, what = "value"): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`);
}

/** The code that `work` is refused with; fails where it is not. */
async function codeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (!code) throw new Error(`an error without a code: ${message}`);
    return code;
  }
  throw new Error("it was not refused");
}

const bytesOf = (count: number, start = 0) => Uint8Array.from({ length: count }, (_, i) => (start + i * 7) % 251);

async function* slowly(...parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    yield part;
  }
}

export const FILE_STORE_CASES: readonly Case[] = [
  {
    name: "reads what was written, text and bytes, in whatever pieces it came",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/text`, "Ünïcode 🐚\n");
      equal(await files.readText(`${folder}/text`), "Ünïcode 🐚\n");
      await files.writeAtomic(`${folder}/bytes`, bytesOf(1000));
      equal([...(await files.readBytes(`${folder}/bytes`))], [...bytesOf(1000)]);
      await files.writeAtomic(`${folder}/pieces`, [bytesOf(3), bytesOf(0), bytesOf(5)]);
      equal([...(await files.readBytes(`${folder}/pieces`))], [...bytesOf(3), ...bytesOf(5)]);
      // Small and large ones in turns, as a checkpoint's tensors.
      const sizes = [3, 600_000, 5, 2_000_000, 400_000, 200_000, 500_000, 0, 7];
      const mixed = sizes.map((size, i) => bytesOf(size, i));
      await files.writeAtomic(`${folder}/mixed`, mixed);
      const whole = await files.readBytes(`${folder}/mixed`);
      let at = 0;
      for (const [i, piece] of mixed.entries()) {
        const found = whole.subarray(at, at + piece.length);
        equal([i, found.length, found.every((byte, k) => byte === piece[k])], [i, piece.length, true]);
        at += piece.length;
      }
      equal(whole.length, at);
      await files.writeAtomic(`${folder}/later`, slowly(bytesOf(2), bytesOf(4)));
      equal([...(await files.readBytes(`${folder}/later`))], [...bytesOf(2), ...bytesOf(4)]);
      await files.writeAtomic(`${folder}/empty`, "");
      equal((await files.readBytes(`${folder}/empty`)).length, 0);
    },
  },
  {
    name: "copies what a writer hands over in a buffer that it uses again",
    async run(files, folder) {
      function* reusing() {
        const buffer = new Uint8Array(4);
        for (let i = 0; i < 3; i++) yield buffer.fill(i);
      }
      await files.writeAtomic(`${folder}/a`, reusing());
      equal([...(await files.readBytes(`${folder}/a`))], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    },
  },
  {
    name: "replaces a longer file by a shorter one, whole",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/a`, bytesOf(5000));
      await files.writeAtomic(`${folder}/a`, "short");
      equal(await files.readText(`${folder}/a`), "short");
      equal(await files.list(folder), ["a"]);
    },
  },
  {
    name: "makes missing folders, and lists names sorted, folders as well, nothing where there is no folder",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/b/c/d`, "1");
      await files.makeFolder(`${folder}/a/empty`);
      await files.writeAtomic(`${folder}/B`, "2");
      equal(await files.list(folder), ["B", "a", "b"]);
      equal(await files.list(`${folder}/a/empty`), []);
      equal(await files.list(`${folder}/nowhere`), []);
      equal(await files.list(`${folder}/B`), []);
      await files.makeFolder(`${folder}/a/empty`);
    },
  },
  {
    name: "knows what exists",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/a/b`, "1");
      const found = [];
      for (const path of ["a", "a/b", "a/b/c", "a/c", "x/y"]) found.push(await files.exists(`${folder}/${path}`));
      equal(found, [true, true, false, false, false]);
    },
  },
  {
    name: "resolves . and .. in paths",
    async run(files, folder) {
      await files.makeFolder(`${folder}/models/embedded`);
      await files.writeAtomic(`${folder}/models/taef2/w`, "1");
      equal(await files.readText(`${folder}/models/embedded/../taef2/./w`), "1");
      equal(await files.exists(`${folder}//models/taef2/w`), true);
    },
  },
  {
    name: "keeps names with spaces, marks and letters of any script",
    async run(files, folder) {
      const names = ["a b", "ä.txt", "100%", "x%41y", "日本", "=+;,!@#$^&()[]{}'~`", ".hidden", "..."];
      for (const name of names) await files.writeAtomic(`${folder}/${name}`, name);
      for (const name of names) equal(await files.readText(`${folder}/${name}`), name);
      equal(await files.list(folder), [...names].sort());
    },
  },
  {
    name: "reads ranges, several readers at a time, and says where a file ends too early",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/a`, bytesOf(10_000));
      const one = await files.open(`${folder}/a`);
      const two = await files.open(`${folder}/a`);
      equal([one.size, two.size], [10_000, 10_000]);
      equal([...(await one.read(9_990, 10))], [...bytesOf(10_000).slice(9_990)]);
      equal([...(await two.read(0, 3))], [...bytesOf(3)]);
      equal((await one.read(10_000, 0)).length, 0);
      equal(await codeOf(() => one.read(9_999, 2)), "E-FILE-003");
      equal(await codeOf(() => one.read(0, 1e15)), "E-FILE-003");
      await one.close();
      equal([...(await two.read(1, 2))], [...bytesOf(3).slice(1)]);
      await two.close();
    },
  },
  {
    name: "lets an open reader go on with the old content while the file is replaced and removed",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/a`, "old content");
      const reader = await files.open(`${folder}/a`);
      await files.writeAtomic(`${folder}/a`, "new");
      equal(await files.readText(`${folder}/a`), "new");
      const second = await files.open(`${folder}/a`);
      await files.remove(folder);
      equal(await files.exists(`${folder}/a`), false);
      equal(new TextDecoder().decode(await reader.read(0, 11)), "old content");
      equal(new TextDecoder().decode(await second.read(0, 3)), "new");
      await reader.close();
      await second.close();
    },
  },
  {
    name: "appends, and what was appended is read at once, beside an open reader too",
    async run(files, folder) {
      await files.append(`${folder}/new/log.jsonl`, '{"a":1}\n');
      await files.append(`${folder}/new/log.jsonl`, '{"b":');
      await files.append(`${folder}/new/log.jsonl`, "2}\n");
      equal(await files.readText(`${folder}/new/log.jsonl`), '{"a":1}\n{"b":2}\n');
      const reader = await files.open(`${folder}/new/log.jsonl`);
      await files.append(`${folder}/new/log.jsonl`, "end");
      equal(reader.size, 16);
      equal(new TextDecoder().decode(await reader.read(8, 8)), '{"b":2}\n');
      await reader.close();
      await Promise.all(["1", "2", "3"].map((text) => files.append(`${folder}/all`, text)));
      equal([...(await files.readText(`${folder}/all`))].sort(), ["1", "2", "3"]);
      await files.writeAtomic(`${folder}/new/log.jsonl`, "over\n");
      await files.append(`${folder}/new/log.jsonl`, "again\n");
      equal(await files.readText(`${folder}/new/log.jsonl`), "over\nagain\n");
    },
  },
  {
    name: "renames a file over another",
    async run(files, folder) {
      await files.append(`${folder}/a`, "new");
      await files.writeAtomic(`${folder}/b`, "old");
      await files.rename(`${folder}/a`, `${folder}/b`);
      equal(await files.list(folder), ["b"]);
      equal(await files.readText(`${folder}/b`), "new");
      equal(await codeOf(() => files.rename(`${folder}/a`, `${folder}/c`)), "E-FILE-001");
      equal(await codeOf(() => files.rename(`${folder}/b`, `${folder}/none/c`)), "E-FILE-001");
    },
  },
  {
    name: "renames a folder with all that is in it onto a missing or empty place, and onto no other",
    async run(files, folder) {
      const content = { "manifest.json": "m", "state.json": "s", "deep/er/w": "w" };
      for (const [name, text] of Object.entries(content)) await files.writeAtomic(`${folder}/a/${name}`, text);
      await files.makeFolder(`${folder}/a/none`);
      await files.rename(`${folder}/a`, `${folder}/b`);
      equal(await files.list(folder), ["b"]);
      equal(await files.list(`${folder}/b`), ["deep", "manifest.json", "none", "state.json"]);
      for (const [name, text] of Object.entries(content)) equal(await files.readText(`${folder}/b/${name}`), text);
      await files.makeFolder(`${folder}/c`);
      await files.rename(`${folder}/b`, `${folder}/c`);
      await files.writeAtomic(`${folder}/d/x`, "x");
      equal(await codeOf(() => files.rename(`${folder}/c`, `${folder}/d`)), "E-FILE-004");
      equal(await codeOf(() => files.rename(`${folder}/c`, `${folder}/c/inside`)), "E-FILE-004");
      equal(await files.readText(`${folder}/c/deep/er/w`), "w");
      equal(await files.list(`${folder}/d`), ["x"]);
    },
  },
  {
    name: "removes files and folders; what is missing is fine",
    async run(files, folder) {
      await files.append(`${folder}/a/b/c`, "1");
      await files.append(`${folder}/a/d`, "1");
      await files.remove(`${folder}/a/b`);
      equal(await files.list(`${folder}/a`), ["d"]);
      await files.remove(`${folder}/a/d`);
      await files.remove(`${folder}/a/d`);
      await files.remove(`${folder}/no/where`);
      equal(await files.list(`${folder}/a`), []);
    },
  },
  {
    name: "says with a code what is missing and what is in the way",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/file`, "1");
      await files.makeFolder(`${folder}/folder`);
      equal(await codeOf(() => files.readBytes(`${folder}/none`)), "E-FILE-001");
      equal(await codeOf(() => files.readText(`${folder}/none/x`)), "E-FILE-001");
      equal(await codeOf(() => files.open(`${folder}/none`)), "E-FILE-001");
      equal(await codeOf(() => files.open(`${folder}/folder`)), "E-FILE-004");
      equal(await codeOf(() => files.readText(`${folder}/folder`)), "E-FILE-004");
      equal(await codeOf(() => files.writeAtomic(`${folder}/folder`, "x")), "E-FILE-004");
      equal(await codeOf(() => files.append(`${folder}/folder`, "x")), "E-FILE-004");
      equal(await codeOf(() => files.makeFolder(`${folder}/file`)), "E-FILE-004");
      equal(await files.list(folder), ["file", "folder"]);
    },
  },
  {
    name: "leaves the old file and nothing else when the writer fails, and passes its error on",
    async run(files, folder) {
      await files.writeAtomic(`${folder}/a`, "old");
      const failure = new Error("no more");
      async function* failing() {
        yield bytesOf(100);
        throw failure;
      }
      const caught = await files.writeAtomic(`${folder}/a`, failing()).catch((error) => error);
      equal(caught === failure, true, "the writer's own error");
      equal(await files.readText(`${folder}/a`), "old");
      equal(await files.list(folder), ["a"]);
    },
  },
  {
    name: "takes the last of several writers, whole",
    async run(files, folder) {
      const texts = ["a", "b", "c", "d"].map((letter) => letter.repeat(20_000));
      await Promise.all(texts.map((text) => files.writeAtomic(`${folder}/same`, text)));
      equal(texts.includes(await files.readText(`${folder}/same`)), true, "one of the texts");
      equal(await files.list(folder), ["same"]);
    },
  },
];

/** Runs all cases, each in a folder of its own, and returns what failed. */
export async function runCases(files: FileStore, base: string): Promise<string[]> {
  const failures: string[] = [];
  for (const [i, { name, run }] of FILE_STORE_CASES.entries()) {
    try {
      await files.makeFolder(`${base}/${i}`);
      await run(files, `${base}/${i}`);
    } catch (error) {
      failures.push(`${name}: ${(error as Error).message}`);
    }
  }
  return failures;
}
