// The hub's client against a hub on this machine: what is fetched and where it lies, resuming after every kind of break,
// hashes, errors told apart, and a cache that needs no network.

import { spawn } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { afterEach, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/base/events.ts";
import { chooseModelFiles, parseHubId } from "../../src/models/hub_id.ts";
import { HubClient, type HubSettings, hubSettings, locateModel } from "../../src/platform/hub.ts";
import { COMMIT, FakeHub } from "../helpers/fake_hub.ts";
import { NodeFiles, ROOT } from "../helpers/files.ts";
import { FullDisk } from "../helpers/full_disk.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const noise = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => (i * 31 + ((i * seed) >> 5)) & 0xff);

const MODEL = {
  "model_index.json": '{"_class_name": "FluxPipeline"}',
  "README.md": "for people",
  "flux.safetensors": noise(5000, 9),
  "transformer/config.json": "{}",
  "transformer/diffusion_pytorch_model.safetensors": noise(300_000),
  "vae/config.json": "{ }",
  "vae/diffusion_pytorch_model.safetensors": noise(2000, 3),
  "vae/diffusion_pytorch_model.fp16.safetensors": noise(2000, 4),
  "text_encoder/model.safetensors": noise(1500, 5),
  "text_encoder/pytorch_model.bin": noise(1500, 6),
};
const BIG = "transformer/diffusion_pytorch_model.safetensors";

interface World {
  hub: FakeHub;
  cache: string;
  client: (own?: Partial<HubSettings>) => Promise<HubClient>;
}

async function world(files: Record<string, Uint8Array | string> = MODEL): Promise<World> {
  const hub = await FakeHub.start(files);
  const cache = mkdtempSync(join(tmpdir(), "longtail-hub-"));
  cleanups.push(
    () => hub.stop(),
    () => rmSync(cache, { recursive: true, force: true }),
  );
  const client = async (own: Partial<HubSettings> = {}) => {
    const settings = await hubSettings({ cache, offline: false }, { HF_ENDPOINT: hub.endpoint, HF_HOME: cache });
    return new HubClient({ ...settings, pauseMs: 1, stallSeconds: 20, ...own });
  };
  return { hub, cache, client };
}

const id = (text = "owner/model") => parseHubId(text)!;
const choose = chooseModelFiles();

async function failure(promise: Promise<unknown>): Promise<LongtailError> {
  const error = await promise.then(
    () => null,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error as LongtailError;
}

const expectFile = (hub: FakeHub, snapshot: string, path: string) =>
  expect(Buffer.compare(readFileSync(join(snapshot, path)), Buffer.from(hub.files.get(path)!)), path).toBe(0);

describe("fetching a model", () => {
  it("brings the files of a pipeline into the layout that other tools share, and a second time asks for none", async () => {
    const { hub, cache, client } = await world();
    const events: RunEvent[] = [];
    const snapshot = await (await client()).fetch(id(), choose, (event) => events.push(event));
    const folder = join(cache, "models--owner--model");
    expect(snapshot).toEqual({
      path: join(folder, "snapshots", COMMIT),
      commit: COMMIT,
      fetched: expect.any(Number) as number,
    });
    const wanted = Object.keys(MODEL).filter((path) => !/README|^flux\.|fp16|\.bin$/.test(path));
    for (const path of wanted) expectFile(hub, snapshot.path, path);
    expect(snapshot.fetched).toBe(wanted.reduce((sum, path) => sum + hub.files.get(path)!.length, 0));
    for (const path of ["README.md", "flux.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"]) {
      expect(existsSync(join(snapshot.path, path)), path).toBe(false);
    }
    expect(readFileSync(join(folder, "refs/main"), "utf8")).toBe(COMMIT);
    expect(readlinkSync(join(snapshot.path, BIG))).toBe(join("../../../blobs", hub.hashOf(BIG)));
    expect(readdirSync(join(folder, "blobs")).filter((name) => name.includes("longtail"))).toEqual([]);
    const phases = events.filter((event) => event.kind === "phase");
    expect(phases.at(-1)).toMatchObject({ name: "fetch owner/model", done: 0.3, total: 0.3, unit: "MB" });

    hub.seen.length = 0;
    expect((await (await client()).fetch(id(), choose)).fetched).toBe(0);
    expect(hub.seen.map(({ path }) => path)).toEqual(["/api/models/owner/model/revision/main"]);
  });

  it("fetches the parts that are asked for, a folder, a file, and another revision", async () => {
    const { hub, client } = await world();
    const hubClient = await client();
    const transformer = await hubClient.fetch(id(), chooseModelFiles(["transformer"]));
    expect(readdirSync(transformer.path).sort()).toEqual(["model_index.json", "transformer"]);
    const vae = await hubClient.fetch(id("owner/model@v1:vae"), choose);
    expect(readdirSync(vae.path).sort()).toEqual(["config.json", "diffusion_pytorch_model.safetensors"]);
    const file = await hubClient.fetch(id(`owner/model@${COMMIT}:flux.safetensors`), choose);
    expect(statSync(file.path).size).toBe(5000);
    expect(hub.seen.some(({ path }) => path.includes("bin"))).toBe(false);
  });

  it("sends the token to the hub and to nobody else", async () => {
    const { hub, client } = await world();
    await (await client({ token: "secret" })).fetch(id(), choose);
    for (const { server, token } of hub.seen) expect(token).toBe(server === "hub" ? "Bearer secret" : null);
    expect(hub.seen.some(({ server }) => server === "store")).toBe(true);
  });

  it("takes one download where two want the same file", async () => {
    const { hub, client } = await world();
    hub.faults.set(BIG, [{ kind: "slow", piece: 60_000, pauseMs: 60 }]);
    const [a, b] = await Promise.all([(await client()).fetch(id(), choose), (await client()).fetch(id(), choose)]);
    expectFile(hub, a.path, BIG);
    expect(b.path).toBe(a.path);
    expect(hub.downloads(BIG)).toHaveLength(1);
  });
});

describe("a download that breaks", () => {
  it("goes on from the byte that it came to, whatever broke it", async () => {
    const { hub, client } = await world();
    hub.faults.set(BIG, [
      { kind: "cut", after: 100_000 },
      { kind: "status", status: 503, headers: { "retry-after": "0" } },
      { kind: "silence", after: 50_000 },
      { kind: "status", status: 403 },
    ]);
    const snapshot = await (await client({ stallSeconds: 0.5 })).fetch(id(), choose);
    expectFile(hub, snapshot.path, BIG);
    const ranges = hub.downloads(BIG).map(({ range }) => range);
    expect(ranges[0]).toBe(null);
    expect(ranges.length).toBe(5);
    const starts = ranges.slice(1).map((range) => Number(range!.slice(6, -1)));
    expect(starts[0]).toBeGreaterThan(0);
    expect(starts[2]).toBeGreaterThan(starts[1]!);
    expect(starts[3]).toBe(starts[2]);
  });

  it("starts over where the server knows no ranges", async () => {
    const { hub, client } = await world();
    hub.faults.set(BIG, [{ kind: "cut", after: 100_000 }, { kind: "no ranges" }]);
    const snapshot = await (await client()).fetch(id(), choose);
    expectFile(hub, snapshot.path, BIG);
  });

  it("goes on after its process was killed", async () => {
    const { hub, cache, client } = await world();
    hub.faults.set(BIG, [{ kind: "slow", piece: 20_000, pauseMs: 100 }]);
    const script = join(ROOT, "tests/helpers/fetch_model.ts");
    const words = ["run", "-A", "--no-check", "--config", join(ROOT, "deno.json"), script];
    const child = spawn(process.execPath, [...words, "owner/model", hub.endpoint, cache], {
      cwd: ROOT,
      stdio: "ignore",
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    const partial = join(cache, "models--owner--model/blobs", `${hub.hashOf(BIG)}.longtail-part`);
    const deadline = Date.now() + 60_000;
    while (!(existsSync(partial) && statSync(partial).size >= 40_000) && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    process.kill(child.pid!, "SIGKILL");
    await ended;
    const kept = statSync(partial).size;
    expect(kept).toBeGreaterThanOrEqual(40_000);
    expect(kept).toBeLessThan(300_000);
    expect(existsSync(partial.replace(/part$/, "lock"))).toBe(true);

    const snapshot = await (await client()).fetch(id(), choose);
    expectFile(hub, snapshot.path, BIG);
    expect(hub.downloads(BIG).at(-1)!.range).toBe(`bytes=${kept}-`);
    expect(existsSync(partial)).toBe(false);
  });

  it("is given up with a code after enough attempts, and what has arrived is kept", async () => {
    const { hub, cache, client } = await world();
    hub.faults.set(BIG, [
      { kind: "cut", after: 100_000 },
      ...Array.from({ length: 4 }, () => ({ kind: "status" as const, status: 503 })),
    ]);
    const error = await failure((await client({ retries: 2 })).fetch(id(), choose));
    expect(error.code).toBe("E-ENV-101");
    const partial = join(cache, "models--owner--model/blobs", `${hub.hashOf(BIG)}.longtail-part`);
    expect(statSync(partial).size).toBeGreaterThan(0);
    hub.faults.clear();
    expectFile(hub, (await (await client()).fetch(id(), choose)).path, BIG);
    expect(hub.downloads(BIG).at(-1)!.range).toMatch(/^bytes=[1-9]/);
  });
});

describe("a file that is not the announced one", () => {
  it("is thrown away and fetched again", async () => {
    const { hub, client } = await world();
    hub.faults.set(BIG, [{ kind: "wrong bytes" }]);
    hub.faults.set("vae/config.json", [{ kind: "wrong bytes" }]);
    const snapshot = await (await client()).fetch(id(), choose);
    expectFile(hub, snapshot.path, BIG);
    expectFile(hub, snapshot.path, "vae/config.json");
  });

  it("is refused the second time, and leaves nothing under its name", async () => {
    const { hub, cache, client } = await world();
    hub.faults.set(BIG, [{ kind: "wrong bytes" }, { kind: "wrong bytes" }]);
    const error = await failure((await client()).fetch(id(), choose));
    expect(error.code).toBe("E-FILE-133");
    expect(error.message).toContain(BIG);
    const blobs = readdirSync(join(cache, "models--owner--model/blobs"));
    expect(blobs.filter((name) => name.startsWith(hub.hashOf(BIG)))).toEqual([]);
  });

  it("is found in what an earlier start left", async () => {
    const { hub, cache, client } = await world();
    const blobs = join(cache, "models--owner--model/blobs");
    await (await client()).fetch(id(), chooseModelFiles(["vae"]));
    writeFileSync(join(blobs, `${hub.hashOf(BIG)}.longtail-part`), noise(1000, 77));
    const snapshot = await (await client()).fetch(id(), choose);
    expectFile(hub, snapshot.path, BIG);
    expect(hub.downloads(BIG).map(({ range }) => range)).toEqual(["bytes=1000-", null]);
  });
});

describe("what a hub refuses", () => {
  const cases: [string, string, Partial<HubSettings>, FakeHub["refusal"], RegExp][] = [
    ["a token that is missing", "E-ENV-102", {}, { status: 401, headers: {} }, /HF_TOKEN/],
    [
      "a token that is wrong",
      "E-ENV-103",
      { token: "x" },
      { status: 401, headers: { "x-error-message": "Invalid credentials in Authorization header" } },
      /rejects the token/,
    ],
    ["a token that may not read it", "E-ENV-103", { token: "x" }, { status: 403, headers: {} }, /rejects the token/],
    [
      "a licence that was not accepted",
      "E-ENV-104",
      { token: "x" },
      { status: 403, headers: { "x-error-code": "GatedRepo" } },
      /127\.0\.0\.1:\d+\/owner\/model, accept the conditions/,
    ],
    [
      "a gated model without a token",
      "E-ENV-102",
      {},
      { status: 401, headers: { "x-error-code": "GatedRepo" } },
      /gated/,
    ],
    [
      "a model that is not there",
      "E-FILE-130",
      { token: "x" },
      { status: 404, headers: { "x-error-code": "RepoNotFound" } },
      /no such model/,
    ],
    ["its own trouble", "E-ENV-101", { retries: 1 }, { status: 503, headers: {} }, /later/],
  ];
  for (const [what, code, settings, refusal, text] of cases) {
    it(`is told apart: ${what}`, async () => {
      const { hub, client } = await world();
      hub.refusal = refusal;
      const error = await failure((await client(settings)).fetch(id(), choose));
      expect(error.code).toBe(code);
      expect(error.message).toMatch(text);
      expect(error.message).not.toContain("Bearer");
    });
  }

  it("is a licence even where the list of files is open", async () => {
    const { hub, client } = await world();
    hub.fileRefusal = { status: 403, headers: { "x-error-code": "GatedRepo" } };
    const error = await failure((await client({ token: "x" })).fetch(id(), choose));
    expect(error.code).toBe("E-ENV-104");
    expect(hub.seen.length).toBeLessThan(10);
  });

  it("names a revision, a file or a folder that is not there", async () => {
    const { client } = await world();
    const hubClient = await client();
    expect((await failure(hubClient.fetch(id("owner/model@v9"), choose))).code).toBe("E-FILE-131");
    expect((await failure(hubClient.fetch(id("owner/other"), choose))).code).toBe("E-FILE-130");
    expect((await failure(hubClient.fetch(id("owner/model:nothing"), choose))).code).toBe("E-FILE-132");
  });

  it("is an answer that would write outside of the cache", async () => {
    const { cache, client } = await world({ ...MODEL, "../../../evil.json": "{}" });
    const error = await failure((await client()).fetch(id(), choose));
    expect(error.code).toBe("E-ENV-101");
    expect(error.message).toContain("evil.json");
    expect(existsSync(join(cache, "models--owner--model"))).toBe(false);
  });

  it("is a network that is away", async () => {
    const { hub, client } = await world();
    const hubClient = await client({ retries: 1 });
    await hub.stop();
    const error = await failure(hubClient.fetch(id(), choose));
    expect(error.code).toBe("E-ENV-100");
    expect(error.message).toContain("HF_HUB_OFFLINE");
  });

  it("is a disk that is full, before and while a file is written", async () => {
    const first = await world();
    const full = new FullDisk((path) => path.endsWith(".longtail-part"));
    expect((await failure((await first.client({ disk: full })).fetch(id(), choose))).code).toBe("E-ENV-020");
    const small = Object.assign(new FullDisk(() => false), { statfs: async () => ({ bavail: 10, bsize: 10 }) });
    // A hub of its own: the first may still be noting requests that its client has given up.
    const { hub, client } = await world();
    const error = await failure((await client({ disk: small as unknown as FullDisk })).fetch(id(), choose));
    expect(error.code).toBe("E-ENV-020");
    expect(hub.seen.some(({ server }) => server === "store")).toBe(false);
  });
});

describe("without a network", () => {
  it("a fetched model is found with no request at all", async () => {
    const { hub, client } = await world();
    const online = await (await client()).fetch(id(), choose);
    hub.seen.length = 0;
    const never = (() => Promise.reject(new Error("a request was sent"))) as typeof fetch;
    const offline = await (await client({ offline: true, fetch: never })).fetch(id(), choose);
    expect(offline).toEqual({ ...online, fetched: 0 });
    expect(hub.seen).toEqual([]);
  });

  it("a named commit that is complete needs none online either", async () => {
    const { hub, client } = await world();
    const pinned = id(`owner/model@${COMMIT}`);
    await (await client()).fetch(pinned, choose);
    hub.seen.length = 0;
    await (await client()).fetch(pinned, choose);
    expect(hub.seen).toEqual([]);
  });

  it("what is missing is named, be it a model or a file of it", async () => {
    const { client } = await world();
    expect((await failure((await client({ offline: true })).fetch(id(), choose))).code).toBe("E-ENV-105");
    await (await client()).fetch(id(), chooseModelFiles(["vae"]));
    const error = await failure((await client({ offline: true })).fetch(id(), choose));
    expect(error.code).toBe("E-ENV-105");
    expect(error.message).toContain(BIG);
  });

  it("a model that another tool fetched is found, and one that is here is used when the hub cannot be reached", async () => {
    const { hub, cache, client } = await world();
    const { path } = await (await client()).fetch(id(), choose);
    rmSync(join(cache, "models--owner--model/.longtail"), { recursive: true });
    expect((await (await client({ offline: true })).fetch(id(), choose)).path).toBe(path);
    await hub.stop();
    const events: RunEvent[] = [];
    const snapshot = await (await client({ retries: 0 })).fetch(id(), choose, (event) => events.push(event));
    expect(snapshot.path).toBe(path);
    expect(events).toContainEqual(expect.objectContaining({ kind: "warning", code: "E-ENV-100" }));
  });
});

describe("settings", () => {
  it("come from the variables that the hub's other tools read", async () => {
    const home = mkdtempSync(join(tmpdir(), "longtail-hub-"));
    cleanups.push(() => rmSync(home, { recursive: true }));
    writeFileSync(join(home, "token"), "from-file\n");
    const read = (environment: Record<string, string>) => hubSettings({}, { HOME: "/nobody", ...environment });
    expect((await read({})).cache).toBe("/nobody/.cache/huggingface/hub");
    expect((await read({ XDG_CACHE_HOME: "/x" })).cache).toBe("/x/huggingface/hub");
    expect(await read({ HF_HOME: home })).toMatchObject({
      cache: join(home, "hub"),
      token: "from-file",
      offline: false,
    });
    expect(await read({ HF_HOME: home, HF_TOKEN: "t", HF_HUB_CACHE: "/c" })).toMatchObject({ cache: "/c", token: "t" });
    expect(await read({ HF_HOME: home, HF_HUB_OFFLINE: "1" })).toMatchObject({ offline: true, token: null });
    expect((await hubSettings({ offline: false, cache: "/own" }, { HF_HUB_OFFLINE: "1" })).cache).toBe("/own");
  });
});

describe("a model in a configuration", () => {
  it("is a path where there is one, else a hub id, else left to the reader of files", async () => {
    const { cache, client } = await world();
    const files = new NodeFiles();
    const hub = () => client();
    expect(await locateModel(files, hub, cache, choose)).toBe(cache);
    expect(await locateModel(files, hub, "owner/model", choose)).toBe(
      join(cache, "models--owner--model/snapshots", COMMIT),
    );
    expect(await locateModel(files, hub, "./not/here", choose)).toBe("./not/here");
    expect(dirname(await locateModel(files, hub, "owner/model:vae/config.json", () => ["vae/config.json"]))).toMatch(
      /vae$/,
    );
  });
});
