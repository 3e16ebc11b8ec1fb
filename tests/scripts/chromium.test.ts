// Which Chromium the tests of the page get, and what is said where there is none.

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureChromium, findChromium } from "../../scripts/chromium.mjs";

describe.skipIf(process.platform === "win32")("the Chromium of the tests", () => {
  let folder: string;
  const before = process.env.XDG_CACHE_HOME;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "longtail-find-"));
    process.env.XDG_CACHE_HOME = join(folder, "cache");
  });
  afterAll(() => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    rmSync(folder, { recursive: true, force: true });
  });

  /** A program that answers as Chromium does to --dump-dom. */
  function fake(name: string, lines: string): string {
    const file = join(folder, name);
    writeFileSync(file, `#!/bin/sh\n${lines}\n`);
    chmodSync(file, 0o755);
    return file;
  }

  it("is the one that LONGTAIL_CHROMIUM names, and is started only once to be known", async () => {
    const program = fake("named", `echo x >> "${folder}/starts"; echo "<html>Chrome/150.0.0.0 Safari</html>"`);
    const env = { LONGTAIL_CHROMIUM: program };
    expect(await findChromium(env)).toEqual({ program, version: 150 });
    expect(await findChromium(env)).toEqual({ program, version: 150 });
    expect(readFileSync(join(folder, "starts"), "utf8")).toBe("x\n");
  });

  it("is the first on PATH that starts and is new enough", async () => {
    const [old, broken, good] = ["old", "broken", "good"].map((name) => mkdtempSync(join(folder, name)));
    const put = (place: string, name: string, lines: string) => fake(join(place.slice(folder.length), name), lines);
    put(old!, "chromium", "echo Chrome/99.0");
    put(broken!, "chromium", "echo cannot open shared object >&2; exit 127");
    const program = put(good!, "google-chrome", "echo Chrome/151.0");
    expect(await findChromium({ PATH: [old, broken, good].join(":") })).toEqual({ program, version: 151 });
    const none = await findChromium({ PATH: [old, broken].join(":") });
    expect(none.program).toBeNull();
    expect(none.why).toMatch(/chromium does not start: cannot open shared object/);
  });

  it("is missing with a reason where it is switched off or named wrongly, and nothing is downloaded", async () => {
    const off = await ensureChromium({ env: { LONGTAIL_CHROMIUM: "off" } });
    expect(off).toEqual({ program: null, why: "LONGTAIL_CHROMIUM is off" });
    const wrong = await ensureChromium({ env: { LONGTAIL_CHROMIUM: "/no/such/chromium" } });
    expect(wrong).toEqual({ program: null, why: "LONGTAIL_CHROMIUM: /no/such/chromium does not exist" });
  });
});
