// Where runs are read from: browser storage, a served run, a dropped folder, the recordings that come along; and what becomes
// of logs that are torn, huge, growing, cut, or of another version.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { LogLine } from "../../../src/web/protocol.ts";
import { applyLine, emptyRunView } from "../../../src/web/run_view.ts";
import { BrowserRunSource, browserRunNames } from "../../../src/web/sources/browser.ts";
import { FolderRunSource, listTree, runsIn } from "../../../src/web/sources/folder.ts";
import { followFile, growingBlob } from "../../../src/web/sources/growing_file.ts";
import { knownLine, LogParser } from "../../../src/web/sources/log_parser.ts";
import { RecordedRunSource, recordings } from "../../../src/web/sources/recorded.ts";
import { ServedRunSource, servedRuns } from "../../../src/web/sources/served.ts";
import type { LogTaker, WatchSource } from "../../../src/web/sources/watch_source.ts";
import { ROOT } from "../../helpers/files.ts";

const line = (step: number, values: Record<string, unknown> = { loss: 1 / step }) =>
  `${JSON.stringify({ t: 1000 + step, step, kind: "metric", values })}\n`;
const stepsOf = (lines: readonly LogLine[]) => lines.map(({ step }) => step);
const times = { look: 5, slice: 8 };

/** Everything that comes until the end. */
function heard(source: WatchSource): Promise<LogLine[]> {
  const all: LogLine[] = [];
  return new Promise((resolve) => source.watch({ lines: (some) => all.push(...some), ended: () => resolve(all) }));
}

/** A folder in memory, as the browser's storage gives it. */
function storage(files: Record<string, string>): FileSystemDirectoryHandle {
  const folder = (prefix: string): FileSystemDirectoryHandle => {
    const missing = () => Promise.reject(new DOMException("no such entry", "NotFoundError"));
    const below = () => Object.keys(files).filter((path) => path.startsWith(prefix));
    return {
      kind: "directory",
      name: prefix.split("/").at(-2) ?? "",
      getDirectoryHandle: (name: string) =>
        below().some((path) => path.startsWith(`${prefix}${name}/`))
          ? Promise.resolve(folder(`${prefix}${name}/`))
          : missing(),
      getFileHandle: (name: string) =>
        Object.hasOwn(files, prefix + name)
          ? Promise.resolve({ kind: "file", getFile: async () => new File([files[prefix + name]!], name) })
          : missing(),
      async *[Symbol.asyncIterator]() {
        const names = new Set(below().map((path) => path.slice(prefix.length).split("/")[0]!));
        for (const name of names)
          yield [name, below().includes(prefix + name) ? { kind: "file" } : folder(`${prefix}${name}/`)];
      },
    } as unknown as FileSystemDirectoryHandle;
  };
  return folder("");
}

const picked = (path: string, text: string) =>
  Object.defineProperty(new File([text], path.split("/").at(-1)!), "webkitRelativePath", { value: path });

describe("the text of a log", () => {
  it("is parsed as far as it is whole, and the rest is counted", () => {
    const parser = new LogParser();
    const lines = parser.push(
      `${line(1)}{"t":5,"st\n\n[]\nnull\n"text"\n{"t":1,"step":1,"kind":"phase"}\n${line(2)}${line(3).slice(0, 9)}`,
    );
    expect(stepsOf(lines)).toEqual([1, 2]);
    expect(parser.facts.torn).toBe(5);
    expect(stepsOf(parser.push(line(3).slice(9)))).toEqual([3]);
    parser.push(line(4).slice(0, 20));
    expect(parser.finish()).toEqual([]);
    expect(parser.facts).toMatchObject({ lines: 3, torn: 6 });
  });

  it("takes a last line that lacks only its end", () => {
    const parser = new LogParser();
    parser.push(line(1).trimEnd());
    expect(stepsOf(parser.finish())).toEqual([1]);
  });

  it("counts kinds of a future version and goes on", () => {
    const parser = new LogParser();
    const future = `{"t":1,"step":1,"kind":"hologram","data":[1]}\n`;
    expect(stepsOf(parser.push(future + line(1) + future))).toEqual([1]);
    expect([...parser.facts.unknown]).toEqual([["hologram", 2]]);
    for (let i = 0; i < 1000; i++) parser.push(`{"t":1,"step":1,"kind":"kind${i}"}\n`);
    expect(parser.facts.unknown.size).toBeLessThanOrEqual(20);
  });

  it("gives numbers that JSON cannot say back as numbers, and leaves out what is none", () => {
    const value = knownLine({
      t: 1,
      step: 1,
      kind: "metric",
      values: { a: "NaN", b: "-Infinity", c: null, d: "x", e: 2 },
    });
    expect(value).toMatchObject({ values: { a: Number.NaN, b: -Infinity, e: 2 } });
    expect(Object.keys((value as { values: object }).values)).toEqual(["a", "b", "e"]);
  });

  it.each([
    { t: "1", step: 1, kind: "message", text: "x" },
    { t: 1, step: null, kind: "message", text: "x" },
    { t: 1, step: 1, kind: "message", text: 5 },
    { t: 1, step: 1, kind: "metric", values: [1] },
    { t: 1, step: 1, kind: "sample", path: {} },
    { t: 1, step: 1, kind: "__proto__" },
    { t: 1, step: 1, kind: "constructor" },
  ])("refuses a line that would break a panel: %j", (value) => {
    expect(knownLine(value)).toBeNull();
  });

  it("of 100,000 lines is shown soon, in slices that leave the page its turns", async () => {
    const text = Array.from({ length: 100_000 }, (_, i) => line(i + 1)).join("");
    const blob = new Blob([text]);
    const view = emptyRunView("huge");
    let turns = 0;
    let longest = 0;
    let last = performance.now();
    const turn = setInterval(() => {
      turns++;
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 0);
    const began = performance.now();
    const file = growingBlob(
      async () => blob,
      async () => false,
    );
    await new Promise<void>((resolve) => {
      const lines = (some: LogLine[]) => {
        for (const one of some) applyLine(view, one);
      };
      followFile(file, new LogParser(), { lines, ended: resolve }, times);
    });
    const took = performance.now() - began;
    clearInterval(turn);
    expect(view.series.get("loss")!.steps).toHaveLength(100_000);
    console.log(
      `100,000 lines (${(text.length / 1e6).toFixed(1)} MB): ${took.toFixed(0)} ms in all, ${turns} turns for the page, ` +
        `longest wait ${longest.toFixed(0)} ms`,
    );
    // Far above what it takes: the limit catches a reader that is quadratic, not a machine that is busy.
    expect(took).toBeLessThan(30_000);
    expect(turns).toBeGreaterThan(5);
  });
});

describe("a file that grows", () => {
  const follow = (latest: () => string | null, goesOn: () => boolean, taker: Partial<LogTaker> = {}) => {
    const all: LogLine[] = [];
    const events: string[] = [];
    const file = growingBlob(
      async () => (latest() === null ? null : new Blob([latest()!])),
      async () => goesOn(),
    );
    return new Promise<{ all: LogLine[]; events: string[] }>((resolve) => {
      followFile(
        file,
        new LogParser(),
        {
          lines: (some) => {
            all.push(...some);
            taker.lines?.(some);
          },
          reset: () => events.push("reset"),
          caughtUp: () => {
            events.push("caught up");
            taker.caughtUp?.();
          },
          ended: () => resolve({ all, events: [...events, "ended"] }),
        },
        times,
      );
    });
  };

  it("is followed to its end, letters of two bytes and torn lines included", async () => {
    let text = line(1, { λ: 1 });
    let goesOn = true;
    const { all, events } = await follow(
      () => text,
      () => goesOn,
      {
        caughtUp: () => {
          text += line(2).slice(0, 10);
          setTimeout(() => (text += line(2).slice(10) + line(3)), 20);
        },
        lines: (some) => {
          if (stepsOf(some).includes(3)) goesOn = false;
        },
      },
    );
    expect(stepsOf(all)).toEqual([1, 2, 3]);
    expect(events).toEqual(["caught up", "ended"]);
  });

  it("is read anew where it was cut or replaced", async () => {
    let text = line(1) + line(2);
    let goesOn = true;
    let cut = false;
    const { all, events } = await follow(
      () => text,
      () => goesOn,
      {
        caughtUp: () => {
          text = line(1);
          cut = true;
        },
        lines: (some) => {
          if (cut && stepsOf(some).at(-1) === 1) text = line(5) + line(6) + line(7);
          if (stepsOf(some).includes(7)) goesOn = false;
        },
      },
    );
    expect(stepsOf(all)).toEqual([1, 2, 1, 5, 6, 7]);
    expect(events).toEqual(["caught up", "reset", "reset", "ended"]);
  });

  it("does not end with the connection that would say whether it goes on", async () => {
    const bytes = new TextEncoder().encode(line(1) + line(2));
    let looks = 0;
    const file = {
      goesOn: async () => {
        if (++looks === 2) throw new TypeError("Failed to fetch");
        return looks < 4;
      },
      read: async (offset: number) => ({
        bytes: bytes.subarray(offset, looks < 4 ? bytes.length / 2 : bytes.length),
        reset: false,
      }),
    };
    const all: LogLine[] = [];
    const events: string[] = [];
    await new Promise<void>((resolve) => {
      const lines = (some: LogLine[]) => void all.push(...some);
      const connection = (state: string) => void events.push(state);
      followFile(file, new LogParser(), { lines, connection, ended: resolve }, times);
    });
    expect(stepsOf(all)).toEqual([1, 2]);
    expect(events).toEqual(["lost", "live"]);
  });

  it("may be empty or missing", async () => {
    expect(
      await follow(
        () => "",
        () => false,
      ),
    ).toEqual({ all: [], events: ["caught up", "ended"] });
    expect(
      await follow(
        () => null,
        () => false,
      ),
    ).toEqual({ all: [], events: ["caught up", "ended"] });
  });
});

describe("browser storage", () => {
  const files = {
    "runs/first/run.json": '{"state":"finished","command":"train"}',
    "runs/first/log.jsonl": line(1) + line(2),
    "runs/first/samples/step-000000/00-seed1.png": "png",
    "runs/dead/run.json": '{"state":"running"}',
    "runs/dead/log.jsonl": line(1),
    "pictures/x.png": "",
  };
  const root = async () => storage(files);

  it("lists runs, reads their files, and gives null for what is not there", async () => {
    expect(await browserRunNames(root)).toEqual(["dead", "first"]);
    const source = new BrowserRunSource("first", root);
    expect(await (await source.blob("samples/step-000000/00-seed1.png"))!.text()).toBe("png");
    expect(await source.text("report.json")).toBeNull();
    expect(await source.text("samples/none/00.png")).toBeNull();
    expect(stepsOf(await heard(source))).toEqual([1, 2]);
  });

  it("ends with a run whose tab is gone although its record says running", async () => {
    expect(stepsOf(await heard(new BrowserRunSource("dead", root, async () => false)))).toEqual([1]);
  });

  it("is empty where there is none", async () => {
    expect(await browserRunNames(() => Promise.reject(new Error("SecurityError")))).toEqual([]);
  });
});

describe("a folder that was picked", () => {
  const run = (prefix: string) => [
    picked(`${prefix}log.jsonl`, line(1) + line(2)),
    picked(`${prefix}run.json`, '{"state":"running"}'),
    picked(`${prefix}samples/step-000000/00-seed1.png`, "png"),
  ];

  it("is a run itself", async () => {
    const [source, ...others] = await runsIn(listTree(run("mine/")));
    expect([source!.name, others.length]).toEqual(["mine", 0]);
    expect(stepsOf(await heard(source!))).toEqual([1, 2]);
    expect(await (await source!.blob("samples/step-000000/00-seed1.png"))!.text()).toBe("png");
    expect(await source!.text("../secret")).toBeNull();
  });

  it("holds several runs, or a project with a folder of runs", async () => {
    expect(
      (await runsIn(listTree([...run("runs/b/"), ...run("runs/a/"), picked("runs/x/y.txt", "")]))).map(
        ({ name }) => name,
      ),
    ).toEqual(["a", "b"]);
    expect((await runsIn(listTree([...run("p/runs/a/"), picked("p/README.md", "")]))).map(({ name }) => name)).toEqual([
      "a",
    ]);
    expect(await runsIn(listTree([picked("photos/cat.png", "")]))).toEqual([]);
  });

  it("may be a log alone", async () => {
    const [source] = await runsIn(listTree([new File([line(1)], "server-7.jsonl")]));
    expect(source!.name).toBe("server-7");
    expect(stepsOf(await heard(source!))).toEqual([1]);
  });

  it("behind a handle is read again while the run goes on", async () => {
    const files: Record<string, string> = { "a/log.jsonl": line(1), "a/run.json": '{"state":"running"}' };
    const { handleTree } = await import("../../../src/web/sources/folder.ts");
    const [source] = await runsIn(handleTree(storage(files)));
    expect(source).toBeInstanceOf(FolderRunSource);
    setTimeout(() => {
      files["a/log.jsonl"] += line(2);
      files["a/run.json"] = '{"state":"finished"}';
    }, 50);
    expect(stepsOf(await heard(source!))).toEqual([1, 2]);
  });
});

/** An EventSource whose server is the test. */
class FakeEvents extends EventTarget {
  readyState = 1;
  closed = false;
  readonly url: string;
  constructor(url: string) {
    super();
    this.url = url;
  }
  close() {
    this.closed = true;
    this.readyState = 2;
  }
  send(type: string, data = "") {
    this.dispatchEvent(new MessageEvent(type, { data }));
  }
}

describe("a served run", () => {
  const opened: FakeEvents[] = [];
  const connect = (url: string) => {
    opened.push(new FakeEvents(url));
    return opened.at(-1) as unknown as EventSource;
  };
  const files: Record<string, string> = {};
  const get = (async (url: string | URL | Request, init?: RequestInit) => {
    const path = decodeURIComponent(String(url)).replace("?optional", "");
    const text = files[path];
    if (text === undefined) return new Response("no", { status: 404 });
    const from = /^bytes=(\d+)-/.exec(new Headers(init?.headers).get("Range") ?? "")?.[1];
    if (from === undefined) return new Response(text);
    const range = { "Content-Range": `bytes */${text.length}` };
    if (Number(from) >= text.length) return new Response("", { status: 416, headers: range });
    return new Response(text.slice(Number(from)), {
      status: 206,
      headers: { "Content-Range": `bytes ${from}-${text.length - 1}/${text.length}` },
    });
  }) as typeof fetch;

  it("tells lines, a new beginning, a lost connection and the end", () => {
    const events: string[] = [];
    const source = new ServedRunSource("a b", get, connect);
    source.watch({
      lines: (some) => events.push(`lines ${stepsOf(some)}`),
      reset: () => events.push("reset"),
      caughtUp: () => events.push("caught up"),
      connection: (state) => events.push(state),
      ended: () => events.push("ended"),
    });
    const server = opened.at(-1)!;
    expect(server.url).toBe("api/runs/a%20b/events");
    server.send("lines", (line(1) + line(2)).trimEnd());
    server.send("now");
    server.send("state", '{"state":"running"}');
    server.readyState = 0;
    server.send("error");
    server.send("open");
    server.send("reset");
    server.send("lines", line(1).trimEnd());
    server.send("state", '{"state":"finished"}');
    server.send("lines", line(9).trimEnd());
    expect(events).toEqual(["lines 1,2", "caught up", "lost", "live", "reset", "lines 1", "ended"]);
    expect(server.closed).toBe(true);
  });

  it("ends where the server refuses", () => {
    let ended = false;
    new ServedRunSource("gone", get, connect).watch({ lines: () => {}, ended: () => (ended = true) });
    opened.at(-1)!.readyState = 2;
    opened.at(-1)!.send("error");
    expect(ended).toBe(true);
  });

  it("beyond four at once asks by ranges, so that connections are left for pictures", async () => {
    const before = opened.length;
    const stops = [1, 2, 3, 4].map(() => new ServedRunSource("x", get, connect).watch({ lines: () => {} }));
    files["api/runs/fifth/files/log.jsonl"] = line(1) + line(2);
    files["api/runs/fifth/files/run.json"] = '{"state":"finished"}';
    expect(stepsOf(await heard(new ServedRunSource("fifth", get, connect)))).toEqual([1, 2]);
    expect(opened.length - before).toBe(4);
    for (const stop of stops) stop();
    new ServedRunSource("x", get, connect).watch({ lines: () => {} })();
    expect(opened.length - before).toBe(5);
  });

  it("is listed, or not where the server is another one", async () => {
    files["api/runs"] = '{"runs":[{"name":"a"}],"control":false,"now":1}';
    expect((await servedRuns(get))!.runs).toHaveLength(1);
    files["api/runs"] = "<html>";
    expect(await servedRuns(get)).toBeNull();
    expect(await servedRuns((() => Promise.reject(new TypeError("offline"))) as typeof fetch)).toBeNull();
  });

  it("takes a command with its token and says why one was refused", async () => {
    const sent: RequestInit[] = [];
    const answer = (status: number, text: string) =>
      (async (_url: unknown, init: RequestInit) => {
        sent.push(init);
        return new Response(text, { status });
      }) as unknown as typeof fetch;
    await new ServedRunSource("a", answer(200, "{}"), connect).command("pause", "secret");
    expect(sent[0]).toMatchObject({
      method: "POST",
      body: '{"word":"pause"}',
      headers: { "X-Longtail-Token": "secret" },
    });
    await expect(
      new ServedRunSource("a", answer(401, "the token is wrong\n"), connect).command("stop", "x"),
    ).rejects.toThrow(/^the token is wrong$/);
  });
});

describe("the recordings that come along", () => {
  const folder = join(ROOT, "src", "web", "public", "recorded");
  const get = (async (url: string | URL | Request) => {
    try {
      return new Response(readFileSync(join(folder, String(url).replace(/^recorded\//, ""))));
    } catch {
      return new Response("", { status: 404 });
    }
  }) as typeof fetch;

  it("are real runs with every sample that their log names, at most 400 KB in all", async () => {
    const all = await recordings(get);
    expect(all.map(({ command }) => command)).toEqual(["train", "demo"]);
    for (const { name, updates, device, started } of all) {
      expect(device.length).toBeGreaterThan(3);
      expect(Number.isNaN(Date.parse(started))).toBe(false);
      const source = new RecordedRunSource(name, get);
      const view = emptyRunView(name);
      for (const one of await heard(source)) applyLine(view, one);
      expect(view.step).toBe(updates);
      expect(source.facts).toMatchObject({ torn: 0, unknown: new Map() });
      for (const samples of view.samples.values())
        for (const { path } of samples) expect(await source.has(path), path).toBe(true);
      for (const path of ["config.toml", "config.resolved.toml", "run.json", "env.json", "report.json"])
        expect(await source.has(path), path).toBe(true);
    }
    const bytes = readdirSync(folder, { recursive: true, encoding: "utf8" }).reduce(
      (sum, path) => sum + (statSync(join(folder, path)).isFile() ? statSync(join(folder, path)).size : 0),
      0,
    );
    expect(bytes).toBeLessThan(400_000);
  });

  it("name no folder of the machine that they were made on", () => {
    for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" }))
      if (/\.(json|jsonl|toml)$/.test(path))
        expect(readFileSync(join(folder, path), "utf8"), path).not.toMatch(/["' ]\/(?:home|Users|root|tmp|work)\//);
  });

  it("are none where the files are missing", async () => {
    expect(await recordings((async () => new Response("", { status: 404 })) as typeof fetch)).toEqual([]);
  });
});
