// The start-up scripts: reading package sources, counting test results, locks between two starts.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chooseArchive, osRelease, packageFamily, parseSources } from "../../scripts/apt-source.mjs";
import { summarize, summaryLine } from "../../scripts/test.mjs";
import {
  lastLines,
  readJson,
  runForeground,
  runLogged,
  SetupError,
  withLock,
  writeJson,
} from "../../scripts/tools.mjs";

let folder: string;
let cacheBefore: string | undefined;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-setup-"));
  cacheBefore = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
});
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = cacheBefore;
  rmSync(folder, { recursive: true, force: true });
});

describe("package sources", () => {
  it("are read from one-line files", () => {
    const text = `# deb http://old.example/debian buster main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://deb.example/debian bookworm main contrib # note
deb-src http://deb.example/debian bookworm main
deb http://ports.example/ubuntu-ports noble-updates universe`;
    expect(parseSources(text, { deb822: false })).toEqual([
      {
        uri: "http://deb.example/debian",
        suite: "bookworm",
        components: ["main", "contrib"],
        signedBy: "/usr/share/keyrings/k.gpg",
      },
      { uri: "http://ports.example/ubuntu-ports", suite: "noble-updates", components: ["universe"], signedBy: "" },
    ]);
  });

  it("are read from deb822 files, without disabled ones and with keys that are written out", () => {
    const text = `# comment
Types: deb deb-src
URIs: http://archive.example/ubuntu/
Suites: noble noble-updates
Components: main universe
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 abc

Types: deb
URIs: http://off.example/ubuntu/
Suites: noble
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/ubuntu/
Suites: noble
Components: main
`;
    const entries = parseSources(text, { deb822: true });
    expect(entries.map((entry: { suite: string }) => entry.suite)).toEqual(["noble", "noble-updates"]);
    expect(entries[0]).toMatchObject({ uri: "http://archive.example/ubuntu/", signedBy: "" });
  });

  it("of the distribution are told from those of vendors", () => {
    const entry = (uri: string, suite: string, components = ["main"]) => ({ uri, suite, components, signedBy: "" });
    const vendor = entry("https://vendor.example/apt", "bookworm");
    const security = entry("http://deb.example/debian-security/", "bookworm-security");
    const own = entry("http://deb.example/debian/", "bookworm");
    expect(chooseArchive([vendor, security, own], "debian", "bookworm")).toBe(own);
    const mirror = entry("https://mirror.example/deb-remote", "bookworm");
    expect(chooseArchive([security, mirror], "debian", "bookworm")).toBe(mirror);
    expect(chooseArchive([entry("http://p.example/ubuntu-ports/", "noble")], "ubuntu", "noble")?.uri).toContain(
      "ports",
    );
    expect(chooseArchive([security], "debian", "bookworm")).toBe(null);
  });

  it("belong to the family that a derivative names", () => {
    const file = join(folder, "os-release");
    writeFileSync(
      file,
      'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\nPRETTY_NAME="Mint"\n',
    );
    expect(osRelease(file)).toMatchObject({ codename: "noble", name: "Mint" });
    expect(packageFamily(osRelease(file))).toBe("ubuntu");
    writeFileSync(file, "ID=fedora\n");
    expect(packageFamily(osRelease(file))).toBe(null);
  });
});

describe("the closing line of the tests", () => {
  const file = (status: string, ...tests: string[]) => ({
    status,
    assertionResults: tests.map((s) => ({ status: s })),
  });

  it("counts passes, failures and skips", () => {
    const report = { testResults: [file("passed", "passed", "pending"), file("failed", "passed", "failed", "failed")] };
    const counts = summarize(report, 1);
    expect(summaryLine(counts)).toBe("2 passed, 2 failed, 1 skipped");
    expect(counts.reason).toBe("");
  });

  it("does not mention skips where there are none", () => {
    expect(summaryLine(summarize({ testResults: [file("passed", "passed")] }, 0))).toBe("1 passed, 0 failed");
  });

  it("counts a file that failed before its first test", () => {
    expect(summarize({ testResults: [file("failed"), file("passed", "passed")] }, 1)).toMatchObject({
      passed: 1,
      failed: 1,
    });
  });

  it("is never green after a crash, without tests, or with an error outside of tests", () => {
    expect(summarize(null, 139)).toMatchObject({ passed: 0, failed: 1 });
    expect(summarize({ testResults: [] }, 0)).toMatchObject({ failed: 1, reason: "no test ran" });
    expect(summarize({ testResults: [file("passed", "passed")] }, 1)).toMatchObject({ passed: 1, failed: 1 });
  });
});

describe("programs that are started", () => {
  it("leave output and log, and a missing program has code 127", async () => {
    const log = join(folder, "log.txt");
    expect(await runLogged("sh", ["-c", "echo out; echo the cause >&2; exit 5"], { log })).toEqual({
      code: 5,
      output: "out\n",
    });
    expect(lastLines(log, 1)).toBe("the cause");
    expect((await runLogged("longtail-no-such-program", [], { log })).code).toBe(127);
  });

  it("hand on their exit code, or 128 and the signal's number", async () => {
    expect(await runForeground("sh", ["-c", "exit 7"])).toBe(7);
    expect(await runForeground("sh", ["-c", "kill -TERM $$"])).toBe(143);
  });
});

describe("files of the set-up", () => {
  it("are read back, and a damaged one counts as missing", () => {
    const file = join(folder, "deep", "state.json");
    writeJson(file, { a: 1 });
    expect(readJson(file)).toEqual({ a: 1 });
    writeFileSync(file, '{"a": ');
    expect(readJson(file)).toBe(null);
    expect(readJson(join(folder, "none.json"))).toBe(null);
  });

  it("give errors with code, place, cause and fix", () => {
    const error = new SetupError("E-ENV-049", { what: "it broke", where: "here", why: "of that", fix: "do this" });
    expect(error.message).toBe("E-ENV-049 here: it broke → of that. Fix: do this");
    expect(error.exitCode).toBe(3);
  });
});

describe("the lock between two starts", () => {
  it("lets one work at a time", async () => {
    const order: string[] = [];
    let waited = 0;
    const work = (name: string) => async () => {
      order.push(`${name} in`);
      await new Promise((resolve) => setTimeout(resolve, 50));
      order.push(`${name} out`);
    };
    const wait = () => waited++;
    await Promise.all([withLock("two", work("a"), wait), withLock("two", work("b"), wait)]);
    expect(order.map((step) => step.split(" ")[1])).toEqual(["in", "out", "in", "out"]);
    expect(waited).toBe(1);
    expect(readdirSync(join(folder, "longtail", "locks"))).toEqual([]);
  });

  it("is given back when the work fails", async () => {
    const failing = withLock("fails", async () => {
      throw new Error("no");
    });
    await expect(failing).rejects.toThrow("no");
    expect(await withLock("fails", async () => 1)).toBe(1);
  });

  it("is taken from a start that died", async () => {
    const lock = join(folder, "longtail", "locks", "dead.lock");
    mkdirSync(lock, { recursive: true });
    // A process that has ended: its number is free for the moment.
    const { pid } = spawnSync("sh", ["-c", "exit 0"]);
    writeFileSync(join(lock, "owner.json"), JSON.stringify({ pid, host: hostname() }));
    expect(await withLock("dead", async () => "mine")).toBe("mine");
  });
});
