// Checkpoints: exact to the bit, never torn, refused where they do not belong.

import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import { type DiskCalls, DiskFiles } from "../../src/platform/files.ts";
import {
  bestCheckpoint,
  type CheckpointContent,
  checkpointEntry,
  flatKeys,
  loadCheckpoint,
  markBest,
  newestCheckpoint,
  rotateCheckpoints,
  saveCheckpoint,
} from "../../src/training/checkpoint.ts";
import { exactJson } from "../../src/training/exact_json.ts";
import { KillableFiles } from "./killable_files.ts";

const FOLDER = "runs/a/ckpt";
const identity = { config: { "align.sigma_max": 0.96, "train.seed": 1 }, model: { "transformer.sha256": "ab12" } };

/** f32 patterns that arithmetic or text would lose: both zeros, subnormals, infinities, NaNs with a payload. */
const hard = new Float32Array(
  Uint32Array.of(0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x7f800000, 0xff800000, 0x7fc0beef, 0xffa00001, 0x3f800001)
    .buffer,
);

function content(step: number, value = step): CheckpointContent {
  const filled = (size: number, offset: number) =>
    Float32Array.from({ length: size }, (_, i) => value + offset + i / 7);
  return {
    step,
    groups: {
      weights: [
        { name: "a.weight", shape: [2, 3], load: () => filled(6, 0) },
        { name: "a.bias", shape: [10], load: async () => hard },
      ],
      first_moment: [{ name: "a.weight", shape: [2, 3], load: () => filled(6, 100) }],
    },
    state: { cursor: 12, streams: { noise: [1, 2] }, guard: { slope: -0, mean: 0.1 + 0.2 }, ladder: 80 },
    identity,
  };
}

const bits = (values: Float32Array) => [
  ...new Uint32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength)),
];

const failure = (promise: Promise<unknown>): Promise<LongtailError> =>
  promise.then(
    () => {
      throw new Error("nothing was thrown");
    },
    (error) => error,
  );

describe("a checkpoint", () => {
  it("gives back every bit of its tensors and of its state", async () => {
    const files = new KillableFiles();
    const path = await saveCheckpoint(files, FOLDER, content(200));
    expect(path).toBe(`${FOLDER}/step-000200`);
    const { newest, skipped } = await newestCheckpoint(files, FOLDER);
    expect(skipped).toEqual([]);
    const checkpoint = await loadCheckpoint(files, newest!, identity);
    expect(checkpoint.step).toBe(200);
    const found = new Map<string, Float32Array | Uint32Array>();
    const shapes = content(200).groups["weights"]!;
    await checkpoint.restore("weights", shapes, (name, values) => void found.set(name, values));
    expect(bits(found.get("a.bias") as Float32Array)).toEqual(bits(hard));
    expect([...found.get("a.weight")!]).toEqual([...Array.from({ length: 6 }, (_, i) => Math.fround(200 + i / 7))]);
    expect(checkpoint.state).toEqual(content(200).state);
    expect(Object.is((checkpoint.state as { guard: { slope: number } }).guard.slope, -0)).toBe(true);
    await checkpoint.close();
    expect(files.openHandles).toBe(0);
  });

  it("holds words of codes as they are, and is refused where words are expected and numbers lie", async () => {
    const files = new KillableFiles();
    const words = Uint32Array.from({ length: 130 }, (_, i) => (i * 0x9e3779b9) >>> 0);
    const moments = { name: "a.weight.moments", shape: [1, 130], dtype: "U32" as const };
    const saved = { ...content(3), groups: { moments: [{ ...moments, load: () => words }] } };
    const path = await saveCheckpoint(files, FOLDER, saved);
    const checkpoint = await loadCheckpoint(files, path, identity);
    let found: unknown = null;
    await checkpoint.restore("moments", [moments], (_, values) => {
      found = values;
    });
    expect(found).toEqual(words);
    const error = await failure(checkpoint.restore("moments", [{ ...moments, dtype: "F32" }], () => {}));
    expect(error.code).toBe("E-RUN-012");
    expect(error.message).toContain("a.weight.moments has element type U32, expected F32");
    await checkpoint.close();
    const variable = { name: "v", shape: [2], dtype: "u32" };
    expect(checkpointEntry(variable)).toEqual({ name: "v", shape: [2], dtype: "U32" });
    expect(checkpointEntry({ ...variable, dtype: "f32" }).dtype).toBe("F32");
  });

  it("is the newest one that is whole, and is named when it is skipped", async () => {
    const files = new KillableFiles();
    for (const step of [20, 40, 60, 80]) await saveCheckpoint(files, FOLDER, content(step));
    const flip = (path: string) => {
      const bytes = files.content.get(path)!.slice();
      bytes[bytes.length - 3]! ^= 1;
      files.content.set(path, bytes);
    };
    flip(`${FOLDER}/step-000080/weights.safetensors`);
    const short = `${FOLDER}/step-000060/state.json`;
    files.content.set(short, files.content.get(short)!.slice(0, -1));
    files.content.delete(`${FOLDER}/step-000040/manifest.json`);
    const { newest, skipped } = await newestCheckpoint(files, FOLDER);
    expect(newest!.step).toBe(20);
    expect(skipped.map(({ path, reason }) => `${path.slice(-9)} ${reason}`)).toEqual([
      "ep-000080 weights.safetensors has changed: its SHA-256 is not the manifest's",
      expect.stringMatching(/^ep-000060 state.json has \d+ bytes instead of \d+$/),
      "ep-000040 it has no manifest.json",
    ]);
    const error = await failure(loadCheckpoint(files, `${FOLDER}/step-000080/`, identity));
    expect(error.code).toBe("E-RUN-013");
    expect(error.message).toContain("weights.safetensors has changed");
  });

  it("refuses a manifest that is damaged in any way", async () => {
    for (const text of [
      "",
      "{",
      "null",
      "[]",
      "{}",
      '{"format":"longtail-checkpoint"}',
      '{"format":"longtail-checkpoint","version":1}',
      '{"format":"longtail-checkpoint","version":2}',
    ]) {
      const files = new KillableFiles();
      await saveCheckpoint(files, FOLDER, content(1));
      files.content.set(`${FOLDER}/step-000001/manifest.json`, new TextEncoder().encode(text));
      const { newest, skipped } = await newestCheckpoint(files, FOLDER);
      expect(newest, text).toBe(null);
      expect(skipped.length, text).toBe(1);
    }
  });

  it("is never torn, wherever the process is killed while it saves, replaces or rotates", async () => {
    const script = async (files: KillableFiles) => {
      await saveCheckpoint(files, FOLDER, content(20));
      await saveCheckpoint(files, FOLDER, content(40));
      await markBest(files, FOLDER, 20, "before an alarm");
      await saveCheckpoint(files, FOLDER, content(40, 41));
      await saveCheckpoint(files, FOLDER, content(60));
      await rotateCheckpoints(files, FOLDER, 1);
    };
    const whole = new KillableFiles();
    await script(whole);
    expect(whole.changes).toBeGreaterThan(20);
    let reached = 0;
    for (let kill = 0; kill < whole.changes; kill++) {
      const files = new KillableFiles();
      files.changesLeft = kill;
      await expect(script(files)).rejects.toThrow("killed");
      files.changesLeft = Number.POSITIVE_INFINITY;
      const { newest } = await newestCheckpoint(files, FOLDER);
      const step = newest?.step ?? 0;
      // Replacing step 40 moves the old one aside for a moment; then the one before it is the newest.
      expect(step, `killed after ${kill} changes`).toBeGreaterThanOrEqual(reached === 40 ? 20 : reached);
      reached = Math.max(reached, step);
      if (newest) {
        const checkpoint = await loadCheckpoint(files, newest, identity);
        let first = Number.NaN;
        await checkpoint.restore("weights", content(1).groups["weights"]!, (name, values) => {
          if (name === "a.weight") first = values[0]!;
        });
        expect(step === 40 ? [40, 41] : [step]).toContain(first);
      }
      // The next save goes through and cleans up.
      await saveCheckpoint(files, FOLDER, content(80));
      expect((await newestCheckpoint(files, FOLDER)).newest!.step).toBe(80);
      expect((await newestCheckpoint(files, FOLDER)).skipped).toEqual([]);
    }
    expect(reached).toBe(60);
  });

  it("leaves nothing behind when the disk fills up at any write", async () => {
    for (let write = 0; write < 4; write++) {
      const files = new KillableFiles();
      await saveCheckpoint(files, FOLDER, content(20));
      const before = [...files.content.keys()];
      files.writesLeft = write;
      expect((await failure(saveCheckpoint(files, FOLDER, content(40)))).code).toBe("E-ENV-020");
      expect([...files.content.keys()]).toEqual(before);
      expect(await newestCheckpoint(files, FOLDER)).toMatchObject({ newest: { step: 20 }, skipped: [] });
    }
  });

  it("leaves nothing behind on a real disk that fills up in the middle of a file", async () => {
    const folder = await fs.mkdtemp(join(tmpdir(), "longtail-checkpoint-"));
    try {
      let left = 300;
      const disk: DiskCalls = {
        rename: fs.rename,
        rm: fs.rm,
        statfs: fs.statfs,
        open: (async (path: string, flags: string) => {
          const handle = await fs.open(path, flags);
          const write = handle.write.bind(handle);
          handle.write = (async (chunk: Uint8Array, offset: number, length: number) => {
            if (left < length) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
            left -= length;
            return await write(chunk, offset, length);
          }) as typeof handle.write;
          return handle;
        }) as typeof fs.open,
      };
      expect((await failure(saveCheckpoint(new DiskFiles(disk), folder, content(40)))).code).toBe("E-ENV-020");
      expect(await fs.readdir(folder)).toEqual([]);
      left = Number.POSITIVE_INFINITY;
      await saveCheckpoint(new DiskFiles(disk), folder, content(40));
      await saveCheckpoint(new DiskFiles(disk), folder, content(40, 41));
      expect(await fs.readdir(folder)).toEqual(["step-000040"]);
      const checkpoint = await loadCheckpoint(new DiskFiles(), join(folder, "step-000040"), identity);
      await checkpoint.restore("first_moment", content(1).groups["first_moment"]!, (_, values) =>
        expect(values[0]).toBe(141),
      );
      await checkpoint.close();
    } finally {
      await fs.rm(folder, { recursive: true, force: true });
    }
  });

  it("is refused by a run of another configuration or model, with the key", async () => {
    const files = new KillableFiles();
    const path = await saveCheckpoint(files, FOLDER, content(20));
    const config = await failure(
      loadCheckpoint(files, path, { ...identity, config: { ...identity.config, "align.sigma_max": 0.9 } }),
    );
    expect(config.code).toBe("E-RUN-010");
    expect(config.message).toContain("align.sigma_max was 0.96 and is 0.9");
    const added = await failure(
      loadCheckpoint(files, path, { ...identity, config: { ...identity.config, "align.new": true } }),
    );
    expect(added.message).toContain("align.new was not set and is true");
    const model = await failure(loadCheckpoint(files, path, { ...identity, model: { "transformer.sha256": "cd" } }));
    expect(model.code).toBe("E-RUN-011");
    expect(model.message).toContain('transformer.sha256 was "ab12" and is "cd"');
  });

  it("is refused where tensors are missing, additional or of another shape", async () => {
    const files = new KillableFiles();
    const checkpoint = await loadCheckpoint(files, await saveCheckpoint(files, FOLDER, content(20)), identity);
    const none = () => {};
    const a = { name: "a.weight", shape: [2, 3] };
    expect((await failure(checkpoint.restore("adapter", [a], none))).message).toContain("weights, first_moment alone");
    expect((await failure(checkpoint.restore("weights", [a], none))).message).toContain(
      "a.bias is no tensor of this run",
    );
    expect((await failure(checkpoint.restore("first_moment", [a, { name: "b", shape: [1] }], none))).message).toContain(
      "b is missing",
    );
    const wrong = await failure(checkpoint.restore("first_moment", [{ name: "a.weight", shape: [3, 2] }], none));
    expect(wrong.code).toBe("E-RUN-012");
    expect(wrong.message).toContain("[2, 3], expected [3, 2]");
  });

  it("with a state that JSON would change is refused before anything is written", async () => {
    const files = new KillableFiles();
    const bad = { ...content(20), state: { guard: { mean: Number.NaN } } };
    await expect(saveCheckpoint(files, FOLDER, bad)).rejects.toThrow("guard.mean is NaN");
    expect(files.content.size).toBe(0);
  });
});

describe("rotation", () => {
  it("keeps the newest ones and the one marked best", async () => {
    const files = new KillableFiles();
    for (const step of [20, 40, 60, 80, 100]) await saveCheckpoint(files, FOLDER, content(step));
    await markBest(files, FOLDER, 40, "before the alarm of saturation");
    expect(await rotateCheckpoints(files, FOLDER, 2)).toEqual([`${FOLDER}/step-000060`, `${FOLDER}/step-000020`]);
    expect(await files.list(FOLDER)).toEqual(["best.json", "step-000040", "step-000080", "step-000100"]);
    expect(await bestCheckpoint(files, FOLDER)).toMatchObject({ step: 40, path: `${FOLDER}/step-000040` });
    expect(await rotateCheckpoints(files, FOLDER, 2)).toEqual([]);
  });
});

describe("flat keys", () => {
  it("name nested options by their path and leave out what may change", () => {
    const config = { run: { name: "a" }, align: { sigma_max: 0.9, pairs: ["a", "b"], unset: undefined } };
    expect(flatKeys(config, (key) => key === "run")).toEqual({ "align.sigma_max": 0.9, "align.pairs": ["a", "b"] });
  });
});

describe("exact JSON", () => {
  it("gives back doubles of every size and both zeros", () => {
    const numbers = [0, -0, 5e-324, -5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2 ** 53 - 1, 1e21, 1e-7];
    const back = JSON.parse(exactJson(numbers)) as number[];
    expect(back.every((value, i) => Object.is(value, numbers[i]))).toBe(true);
    expect(JSON.parse(exactJson({ a: [], b: {}, c: [{ d: "e\n" }] }, 2))).toEqual({ a: [], b: {}, c: [{ d: "e\n" }] });
  });

  it("refuses what JSON drops without a word", () => {
    for (const value of [Number.POSITIVE_INFINITY, undefined, () => 1, new Float32Array(1), new Map(), 1n]) {
      expect(() => exactJson({ state: value } as never)).toThrow("state");
    }
  });
});
