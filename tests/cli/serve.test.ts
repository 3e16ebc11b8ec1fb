// `longtail serve`, end to end over HTTP: what it gives, what it refuses, and how a growing log reaches its reader.
import * as fs from "node:fs";
import { type IncomingHttpHeaders, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { command as serve } from "../../src/cli/commands/serve.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { LogReader } from "../../src/cli/serve/follow_log.ts";
import type { ListedRun } from "../../src/cli/serve/run_list.ts";
import { isOwnHost, pageServer } from "../../src/cli/serve/server.ts";
import { RecordingTerminal } from "./recorder.ts";

let folder: string;
let runs: string;
let port: number;
let stop: () => Promise<void>;
const TOKEN = "a-token-for-tests";

const line = (step: number) =>
  `${JSON.stringify({ t: 1000 + step, step, kind: "metric", values: { loss: 1 / step } })}\n`;
const log = (name: string) => join(runs, name, "log.jsonl");

function makeRun(name: string, state: string, lines: string): void {
  fs.mkdirSync(join(runs, name, "samples", "step-000000"), { recursive: true });
  const record = { state, command: "train", started: "2026-11-23T08:00:00.000Z" };
  fs.writeFileSync(join(runs, name, "run.json"), JSON.stringify(record));
  fs.writeFileSync(log(name), lines);
  fs.writeFileSync(join(runs, name, "samples", "step-000000", "00-seed1.png"), Uint8Array.of(137, 80, 78, 71));
}

async function start(token: string | null): Promise<void> {
  const controller = new AbortController();
  const times = { look: 20, beat: 100 };
  const server = pageServer({
    page: join(folder, "dist"),
    runs,
    host: "127.0.0.1",
    token,
    signal: controller.signal,
    times,
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
  stop = async () => {
    controller.abort();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** A request whose path is sent as it is: fetch would tidy `..` away before it leaves. */
function ask(path: string, options: { method?: string; headers?: Record<string, string>; body?: string } = {}) {
  return new Promise<Answer>((resolve, reject) => {
    const { method = "GET", headers = {}, body } = options;
    const sent = request({ host: "127.0.0.1", port, path, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode!, headers: response.headers, text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

interface Message {
  event: string;
  id: string;
  data: string;
}

/** Follows a run's events as a browser does; `until` says when enough was heard. */
async function follow(name: string, until: (all: Message[], raw: string) => boolean, lastId?: string) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("the events did not come")), 10_000);
  const headers: Record<string, string> = lastId ? { "Last-Event-ID": lastId } : {};
  const response = await fetch(`http://127.0.0.1:${port}/api/runs/${name}/events`, {
    headers,
    signal: controller.signal,
  });
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const all: Message[] = [];
  let raw = "";
  let rest = "";
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  while (!until(all, raw)) {
    const { value, done } = await reader.read();
    if (done) break;
    raw += value;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop()!;
    for (const block of blocks) {
      const fields = block.split("\n").map((one) => [one.slice(0, one.indexOf(":")), one.slice(one.indexOf(":") + 2)]);
      const of = (field: string) => fields.filter(([key]) => key === field).map(([, value]) => value!);
      if (of("event").length > 0)
        all.push({ event: of("event")[0]!, id: of("id")[0] ?? "", data: of("data").join("\n") });
    }
  }
  clearTimeout(timer);
  await reader.cancel();
  controller.abort();
  return all;
}

const stepsOf = (messages: Message[]) =>
  messages
    .filter(({ event }) => event === "lines")
    .flatMap(({ data }) => data.split("\n").map((one) => JSON.parse(one).step as number));

beforeEach(async () => {
  folder = fs.mkdtempSync(join(tmpdir(), "longtail-serve-"));
  runs = join(folder, "runs");
  fs.mkdirSync(join(folder, "dist", "assets"), { recursive: true });
  fs.writeFileSync(join(folder, "dist", "index.html"), "<!doctype html><html><head><title>x</title></head></html>");
  fs.writeFileSync(join(folder, "dist", "assets", "index-abc.js"), "export {};");
  fs.writeFileSync(join(folder, "secret.txt"), "secret");
  makeRun("first", "finished", line(1) + line(2));
  await start(null);
});
afterEach(async () => {
  await stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

describe("the page", () => {
  it("comes with a policy that keeps it to its own origin, and knows that it is served", async () => {
    const { status, headers, text } = await ask("/");
    expect(status).toBe(200);
    expect(text).toContain('<meta name="longtail-serve" content="1">');
    expect(headers["content-security-policy"]).toMatch(/default-src 'none'.*connect-src 'self'/);
    expect(headers["cross-origin-embedder-policy"]).toBe("credentialless");
    expect(headers["x-content-type-options"]).toBe("nosniff");
  });

  it("gives scripts with their type, to be kept for long", async () => {
    const { headers } = await ask("/assets/index-abc.js");
    expect(headers["content-type"]).toContain("text/javascript");
    expect(headers["cache-control"]).toContain("immutable");
  });

  it("answers under this machine's names alone", async () => {
    expect((await ask("/", { headers: { Host: "evil.example" } })).status).toBe(421);
    expect((await ask("/api/runs", { headers: { Host: "evil.example:80" } })).status).toBe(421);
    expect(isOwnHost("localhost:8765", "127.0.0.1")).toBe(true);
    expect(isOwnHost("[::1]:8765", "127.0.0.1")).toBe(true);
    expect(isOwnHost("gpu-box:8765", "gpu-box")).toBe(true);
    expect(isOwnHost(undefined, "127.0.0.1")).toBe(false);
  });
});

describe("the list of runs", () => {
  const list = async () => (JSON.parse((await ask("/api/runs")).text) as { runs: ListedRun[] }).runs;

  it("says state, command and update, also of a run that is under way", async () => {
    makeRun(
      "second",
      "running",
      `${line(1)}{"t":1001,"step":7,"kind":"phase","name":"train","done":7,"total":40,"unit":"updates"}\n{"t":10`,
    );
    const [first, second] = (await list()).sort((a, b) => a.name.localeCompare(b.name));
    expect(first).toMatchObject({ name: "first", command: "train", state: "finished", step: 2 });
    expect(second).toMatchObject({ name: "second", state: "running", step: 7, steps: 40 });
    expect(second!.heard).toBeGreaterThan(0);
  });

  it("lists a run whose record is torn, and leaves out what is no run", async () => {
    makeRun("torn", "running", "");
    fs.writeFileSync(join(runs, "torn", "run.json"), '{"state": "run');
    fs.mkdirSync(join(runs, "empty"));
    fs.writeFileSync(join(runs, "note.txt"), "");
    fs.mkdirSync(join(runs, ".hidden"));
    expect((await list()).map(({ name, state }) => `${name} ${state}`).sort()).toEqual([
      "first finished",
      "torn unknown",
    ]);
  });

  it("is empty where there is no folder of runs", async () => {
    fs.rmSync(runs, { recursive: true });
    expect(await list()).toEqual([]);
  });
});

describe("files of a run", () => {
  it("come with their type, and a report cannot run scripts", async () => {
    fs.writeFileSync(join(runs, "first", "report.html"), "<p>report</p>");
    const report = await ask("/api/runs/first/files/report.html");
    expect(report.headers["content-type"]).toContain("text/html");
    expect(report.headers["content-security-policy"]).toMatch(/^sandbox (?!.*allow-scripts)/);
    const picture = await ask("/api/runs/first/files/samples/step-000000/00-seed1.png");
    expect([picture.status, picture.headers["content-type"]]).toEqual([200, "image/png"]);
  });

  it("are not sent again where the browser has them", async () => {
    const { headers } = await ask("/api/runs/first/files/log.jsonl");
    const again = await ask("/api/runs/first/files/log.jsonl", { headers: { "If-None-Match": headers.etag! } });
    expect([again.status, again.text]).toEqual([304, ""]);
    fs.appendFileSync(log("first"), line(3));
    expect((await ask("/api/runs/first/files/log.jsonl", { headers: { "If-None-Match": headers.etag! } })).status).toBe(
      200,
    );
  });

  it.each([
    ["bytes=0-3", 206, '{"t"', 0],
    ["bytes=-2", 206, "}\n", -2],
    ["bytes=5-", 206, null, 5],
    ["bytes=5-1", 200, null, 0],
    ["bytes=0-1,3-4", 200, null, 0],
    ["lines=1-2", 200, null, 0],
  ])("in the range that was asked for: %s", async (range, status, text, from) => {
    const whole = line(1) + line(2);
    const answer = await ask("/api/runs/first/files/log.jsonl", { headers: { Range: range } });
    expect(answer.status).toBe(status);
    expect(answer.text).toBe(text ?? whole.slice(from));
    if (status === 206) expect(answer.headers["content-range"]).toMatch(new RegExp(`/${whole.length}$`));
  });

  it("refuses a range behind the end, and one of an older state of the file sends all", async () => {
    const behind = await ask("/api/runs/first/files/log.jsonl", { headers: { Range: "bytes=9999-" } });
    expect([behind.status, behind.headers["content-range"]]).toEqual([416, `bytes */${(line(1) + line(2)).length}`]);
    const old = await ask("/api/runs/first/files/log.jsonl", { headers: { Range: "bytes=5-", "If-Range": '"old"' } });
    expect(old.status).toBe(200);
  });

  it("that may be missing are no error where the reader says so", async () => {
    expect((await ask("/api/runs/first/files/env.json?optional")).status).toBe(204);
    expect((await ask("/api/runs/first/files/env.json")).status).toBe(404);
    expect((await ask("/api/runs/first/files/run.json?optional")).status).toBe(200);
    expect((await ask("/api/runs/none/files/run.json?optional")).status).toBe(404);
  });

  it("can be asked for their head alone", async () => {
    const { status, headers, text } = await ask("/api/runs/first/files/log.jsonl", { method: "HEAD" });
    expect([status, text, Number(headers["content-length"])]).toEqual([200, "", (line(1) + line(2)).length]);
  });

  it.each([
    "/api/runs/first/files/../../../secret.txt",
    "/api/runs/first/files/..%2f..%2f..%2fsecret.txt",
    "/api/runs/first/files/%2e%2e/%2e%2e/%2e%2e/secret.txt",
    "/api/runs/first/files/%252e%252e/secret.txt",
    "/api/runs/first/files/..%5c..%5csecret.txt",
    "/api/runs/first/files/samples/../../../../secret.txt",
    "/api/runs/first/files//etc/passwd",
    "/api/runs/first/files/%00",
    "/api/runs/first/files/log.jsonl%00.png",
    "/api/runs/first/files/log.jsonl:stream",
    "/api/runs/first/files/%c0%ae%c0%ae/secret.txt",
    "/api/runs/first/files/%",
    "/api/runs/first/files/.lock",
    "/api/runs/first/files/samples",
    "/api/runs/first/files/",
    "/api/runs/first/files",
    `/api/runs/first/files/${"a".repeat(5000)}`,
    "/api/runs/../files/secret.txt",
    "/api/runs/%2e%2e/files/secret.txt",
    "/api/runs/./files/first/log.jsonl",
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/assets/../../secret.txt",
    "/..%2fsecret.txt",
    "/C:/secret.txt",
  ])("gives nothing from outside the run: %s", async (path) => {
    const { status, text } = await ask(path);
    expect(status).toBe(404);
    expect(text).not.toContain("secret\n");
    expect(text).not.toBe("secret");
  });

  it("does not follow links that lead out of the run or out of the folder of runs", async () => {
    fs.symlinkSync(join(folder, "secret.txt"), join(runs, "first", "link.txt"));
    fs.symlinkSync(folder, join(runs, "first", "up"));
    fs.symlinkSync(folder, join(runs, "outside"));
    fs.symlinkSync(join(runs, "first", "log.jsonl"), join(runs, "first", "same.jsonl"));
    for (const path of ["first/files/link.txt", "first/files/up/secret.txt", "outside/files/secret.txt"])
      expect((await ask(`/api/runs/${path}`)).status, path).toBe(404);
    expect((await ask("/api/runs/first/files/same.jsonl")).status).toBe(200);
  });

  it("writes nothing", async () => {
    for (const method of ["PUT", "POST", "DELETE", "PATCH"])
      expect((await ask("/api/runs/first/files/log.jsonl", { method })).status, method).toBe(405);
    expect((await ask("/", { method: "POST" })).status).toBe(405);
  });
});

describe("events", () => {
  it("end at once for who asks for their head alone", async () => {
    expect(await ask("/api/runs/first/events", { method: "HEAD" })).toMatchObject({ status: 200, text: "" });
  });

  it("bring the log so far, then lines as they are written, and the end", async () => {
    fs.writeFileSync(join(runs, "first", "run.json"), '{"state":"running"}');
    const all = await follow("first", (messages) => {
      const count = stepsOf(messages).length;
      if (count === 2 && fs.statSync(log("first")).size === (line(1) + line(2)).length)
        fs.appendFileSync(log("first"), line(3) + line(4).slice(0, 20));
      if (count === 3 && !fs.readFileSync(log("first"), "utf8").endsWith("\n")) {
        fs.appendFileSync(log("first"), line(4).slice(20));
        fs.writeFileSync(join(runs, "first", "run.json"), '{"state":"finished"}');
      }
      return messages.some(({ event, data }) => event === "state" && data.includes("finished"));
    });
    expect(stepsOf(all)).toEqual([1, 2, 3, 4]);
    expect(all.filter(({ event }) => event === "state").map(({ data }) => JSON.parse(data).state)).toEqual([
      "running",
      "finished",
    ]);
  });

  it("go on after a reconnect where they stopped", async () => {
    const before = await follow("first", (all) => stepsOf(all).length >= 2);
    const place = before.findLast(({ id }) => id)!.id;
    fs.appendFileSync(log("first"), line(3));
    expect(stepsOf(await follow("first", (all) => stepsOf(all).length >= 1, place))).toEqual([3]);
  });

  it("begin anew for a reader who comes back to another log, or with nonsense", async () => {
    const place = (await follow("first", (all) => stepsOf(all).length >= 2)).findLast(({ id }) => id)!.id;
    fs.writeFileSync(log("first"), line(7) + line(8) + line(9));
    const anew = await follow("first", (all) => stepsOf(all).length >= 3, place);
    expect(anew[0]!.event).toBe("reset");
    expect(stepsOf(anew)).toEqual([7, 8, 9]);
    expect(stepsOf(await follow("first", (all) => stepsOf(all).length >= 3, "nonsense"))).toEqual([7, 8, 9]);
  });

  it("say so where the log is cut or replaced while it is read", async () => {
    let cut = 0;
    const all = await follow("first", (messages) => {
      if (cut === 0 && stepsOf(messages).length === 2) {
        cut = 1;
        fs.writeFileSync(log("first"), line(1));
      }
      if (cut === 1 && stepsOf(messages).length === 3) {
        cut = 2;
        fs.writeFileSync(`${log("first")}.new`, line(5) + line(6) + line(7));
        fs.renameSync(`${log("first")}.new`, log("first"));
      }
      return stepsOf(messages).length >= 6;
    });
    expect(all.filter(({ event }) => event === "lines" || event === "reset").map(({ event }) => event)).toEqual([
      "lines",
      "reset",
      "lines",
      "reset",
      "lines",
    ]);
    expect(stepsOf(all)).toEqual([1, 2, 1, 5, 6, 7]);
  });

  it("keep a silent connection alive", async () => {
    await follow("first", (_, raw) => (raw.match(/: still here/g)?.length ?? 0) >= 2);
  });

  it("bring a log that appears later", async () => {
    fs.rmSync(log("first"));
    const all = await follow("first", (messages) => {
      if (messages.length > 0 && !fs.existsSync(log("first"))) fs.writeFileSync(log("first"), line(1));
      return stepsOf(messages).length >= 1;
    });
    expect(stepsOf(all)).toEqual([1]);
  });

  it("bring 100,000 lines in batches, in order", async () => {
    const steps = Array.from({ length: 100_000 }, (_, i) => i + 1);
    fs.writeFileSync(log("first"), steps.map(line).join(""));
    let count = 0;
    let seen = 0;
    const all = await follow("first", (messages) => {
      for (; seen < messages.length; seen++) {
        const message = messages[seen]!;
        if (message.event === "lines") count += message.data.split("\n").length;
      }
      return count >= 100_000;
    });
    expect(all.length).toBeLessThan(100);
    expect(stepsOf(all)).toEqual(steps);
  });
});

describe("a place in a log", () => {
  it("is found again by another reader, and a line without end is not kept in memory", async () => {
    const path = log("first");
    fs.writeFileSync(path, `${line(1)}${"x".repeat(3_000_000)}`);
    const reader = new LogReader(path);
    const first = (await reader.next())!;
    expect(first.text).toBe(line(1));
    for (let i = 0; i < 5; i++) await reader.next();
    fs.appendFileSync(path, `\n${line(2)}`);
    let text = "";
    for (let batch = await reader.next(); batch; batch = await reader.next()) {
      expect(batch.reset).toBe(false);
      text += batch.text;
    }
    expect(text.endsWith(line(2))).toBe(true);
    expect(text.length).toBeLessThan(2_000_000);
    expect((await new LogReader(path, first.place).next())!.reset).toBe(false);
  });
});

describe("commands", () => {
  beforeEach(() => makeRun("second", "running", line(1)));
  const post = (headers: Record<string, string> = {}, body = '{"word":"pause"}', name = "second") =>
    ask(`/api/runs/${name}/command`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Longtail-Token": TOKEN, ...headers },
      body,
    });
  const written = () => {
    const path = join(runs, "second", "CMD");
    return fs.existsSync(path) ? fs.readFileSync(path, "utf8") : "";
  };

  it("are refused where they were not asked for", async () => {
    expect((await post()).status).toBe(403);
    expect(JSON.parse((await ask("/api/runs")).text).control).toBe(false);
    expect(written()).toBe("");
  });

  describe("with --control", () => {
    beforeEach(async () => {
      await stop();
      await start(TOKEN);
    });

    it("are written into the run's CMD in order", async () => {
      expect(JSON.parse((await ask("/api/runs")).text).control).toBe(true);
      expect((await post({ Origin: `http://127.0.0.1:${port}` })).status).toBe(200);
      expect((await post({}, '{"word":"sample"}')).status).toBe(200);
      expect(written()).toBe("pause\nsample\n");
    });

    it.each([
      ["without the token", 401, { "X-Longtail-Token": "" }, undefined],
      ["with another token", 401, { "X-Longtail-Token": "a-token-for-tesTs" }, undefined],
      ["from another page", 403, { Origin: "http://evil.example" }, undefined],
      ["from another port", 403, { Origin: "http://127.0.0.1:1" }, undefined],
      ["from another site by its own word", 403, { "Sec-Fetch-Site": "cross-site" }, undefined],
      ["as a form", 415, { "Content-Type": "text/plain" }, undefined],
      ["of an unknown word", 400, {}, '{"word":"rm"}'],
      ["of several words in one", 400, {}, '{"word":"pause\\nstop"}'],
      ["that is no JSON", 400, {}, "pause"],
      ["that is null", 400, {}, "null"],
      ["that is too long", 413, {}, `{"word":"${"a".repeat(5000)}"}`],
    ])("are refused %s", async (_name, status, headers, body) => {
      expect((await post(headers as Record<string, string>, body)).status).toBe(status);
      expect(written()).toBe("");
    });

    it("are refused for a run that is over, because it would obey them when it is resumed", async () => {
      const answer = await post({}, undefined, "first");
      expect([answer.status, answer.text.trim()]).toEqual([409, "the run is finished: nobody hears the word"]);
      expect(written()).toBe("");
    });

    it("are refused for a run that is not there, and do not write through a link", async () => {
      expect((await post({}, undefined, "none")).status).toBe(404);
      expect((await post({}, undefined, "%2e%2e")).status).toBe(404);
      fs.symlinkSync(join(folder, "secret.txt"), join(runs, "second", "CMD"));
      expect((await post()).status).toBe(500);
      expect(fs.readFileSync(join(folder, "secret.txt"), "utf8")).toBe("secret");
    });
  });
});

describe("the command", () => {
  const terminal = () => new RecordingTerminal();
  let interrupt: () => void = () => {};
  const run = (out: RecordingTerminal, ...words: string[]) =>
    runCommandLine(["serve", "--port=0", `--folder=${runs}`, `--page=${join(folder, "dist")}`, ...words], {
      commands: [serve],
      terminal: out,
      onInterrupt: (first) => {
        interrupt = first;
        return () => {};
      },
    });
  const printed = async (out: RecordingTerminal, pattern: RegExp) => {
    for (let i = 0; i < 200; i++) {
      const match = pattern.exec(out.output);
      if (match) return match;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`not printed: ${pattern} in ${out.output}${out.errors}`);
  };

  it("prints its address, serves, and ends with 0 at Ctrl-C although a reader is connected", async () => {
    const out = terminal();
    const ended = run(out);
    const [, url] = await printed(out, /(http:\/\/127\.0\.0\.1:\d+\/)/);
    expect(await (await fetch(url!)).text()).toContain("longtail-serve");
    const events = await fetch(`${url}api/runs/first/events`);
    const began = performance.now();
    interrupt();
    expect(await ended).toBe(0);
    expect(performance.now() - began).toBeLessThan(2000);
    await events.body?.cancel().catch(() => {});
    expect(out.errors).toBe("");
    expect(out.output).not.toContain("saved");
  });

  it("prints a token with --control, and warns where others can read", async () => {
    const out = terminal();
    const ended = run(out, "--control", "--host=0.0.0.0");
    await printed(out, /&token=[\w-]{24}/);
    expect(out.output + out.errors).toContain("E-ENV-092");
    interrupt();
    expect(await ended).toBe(0);
  });

  it.each([
    ["a taken port", () => [`--port=${port}`], "E-ENV-090", 3],
    ["no port", () => ["--port=http"], "E-ARG-090", 2],
    ["a port too large", () => ["--port=70000"], "E-ARG-090", 2],
    ["no page", () => [`--page=${join(folder, "nothing")}`], "E-ENV-091", 3],
  ])("ends with one coded error: %s", async (_name, words, code, exit) => {
    const out = terminal();
    expect(await run(out, ...words())).toBe(exit);
    expect(out.errors).toContain(code);
    expect(out.errors.trimEnd().split("\n")).toHaveLength(1);
  });
});
