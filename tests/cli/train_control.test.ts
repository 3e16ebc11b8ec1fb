// Words that are written into a running training's CMD file.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { FileControl, stoppedByWord } from "../../src/runs/train/control.ts";
import { MemoryFiles } from "../helpers/files.ts";

let folder: string;
let run: string;
let count = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-control-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  run = join(folder, String(count++));
  mkdirSync(run);
});

function control(files = new DiskFiles()) {
  const events: RunEvent[] = [];
  return { events, control: new FileControl(files, run, (event) => events.push(event)) };
}
const write = (text: string) => writeFileSync(join(run, "CMD"), text);

describe("the words in CMD", () => {
  it("are none where nobody wrote any", async () => {
    expect(await control().control.take()).toEqual([]);
  });

  it("are taken in their order, once, and the file is gone", async () => {
    const { control: heard, events } = control();
    write("save sample\nstop\n");
    expect(await heard.take()).toEqual(["save", "sample", "stop"]);
    expect(readdirSync(run)).toEqual([]);
    expect(await heard.take()).toEqual([]);
    expect(events).toEqual([]);
  });

  it("are read in any case and between any spaces, and an empty file means nothing", async () => {
    const { control: heard } = control();
    write("  SAVE\t\r\nPause\r\n");
    expect(await heard.take()).toEqual(["save", "pause"]);
    write("");
    expect(await heard.take()).toEqual([]);
    expect(readdirSync(run)).toEqual([]);
  });

  it("are told and left out where they are unknown, and the others still count", async () => {
    const { control: heard, events } = control();
    write(`sav save ${"x".repeat(500)} stop`);
    expect(await heard.take()).toEqual(["save", "stop"]);
    expect(events).toMatchObject([
      { kind: "warning", code: "E-RUN-030" },
      { kind: "warning", code: "E-RUN-030" },
    ]);
    expect((events[0] as { text: string }).text).toBe(
      'CMD: "sav" is not known; write save, sample, pause, resume, stop',
    );
    expect((events[1] as { text: string }).text.length).toBeLessThan(120);
  });

  it("of a huge or binary file cost a bounded amount of warnings and do no harm", async () => {
    const { control: heard, events } = control();
    writeFileSync(join(run, "CMD"), new Uint8Array(100_000).fill(0x41));
    expect(await heard.take()).toEqual([]);
    expect(events).toHaveLength(1);
    writeFileSync(join(run, "CMD"), Uint8Array.from([0xff, 0xfe, 0, 0x20, 0xc3]));
    expect(await heard.take()).toEqual([]);
  });

  it("that are written while others are read begin a new file and are heard next", async () => {
    const files = new MemoryFiles({ "run/CMD": "save" });
    const { readText } = MemoryFiles.prototype;
    files.readText = async (path) => {
      const text = await readText.call(files, path);
      // Between the reading and the removal of what was read.
      if (path.endsWith(".taken")) files.content.set("run/CMD", new TextEncoder().encode("stop"));
      return text;
    };
    const heard = new FileControl(files, "run", () => {});
    expect(await heard.take()).toEqual(["save"]);
    files.readText = readText;
    expect(await heard.take()).toEqual(["stop"]);
    expect(files.content.size).toBe(0);
  });
});

describe("a paused run", () => {
  it("goes on when resume is written, with the other words that were written", async () => {
    vi.useFakeTimers();
    try {
      const { control: heard, events } = control();
      let ended: string[] | null = null;
      const paused = heard.pause(new AbortController().signal).then((words) => (ended = words));
      await vi.advanceTimersByTimeAsync(0);
      expect(events).toEqual([{ kind: "message", text: `paused; write resume into ${join(run, "CMD")} to go on` }]);
      await vi.waitFor(() => vi.advanceTimersByTimeAsync(1500));
      expect(ended).toBeNull();
      write("save resume sample");
      await vi.waitFor(async () => {
        await vi.advanceTimersByTimeAsync(500);
        expect(ended).not.toBeNull();
      });
      await paused;
      expect(ended).toEqual(["save", "sample"]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("ends with stop where stop is written", async () => {
    write("stop");
    expect(await control().control.pause(new AbortController().signal)).toEqual(["stop"]);
  });

  it("does what is written meanwhile although nobody resumes it yet", async () => {
    const { control: heard } = control();
    write("save pause");
    // The run does it and pauses again.
    expect(await heard.pause(new AbortController().signal)).toEqual(["save", "pause"]);
  }, 5000);

  it("ends at once where the run is interrupted", async () => {
    const interrupt = new AbortController();
    const paused = control().control.pause(interrupt.signal);
    interrupt.abort();
    expect(await paused).toEqual([]);
  }, 2000);
});

it("a run that was told to stop says how it is continued, with the exit code of a stopped run", () => {
  const error = stoppedByWord("runs/first");
  expect(error.exitCode).toBe(7);
  expect(error.message).toMatch(
    /^E-RUN-001 runs\/first: stopped by CMD .*Fix: continue it with --run\.resume=runs\/first/,
  );
});
