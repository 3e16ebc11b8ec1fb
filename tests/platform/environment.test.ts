// The facts for env.json: complete, plain JSON, and free of what identifies a person.

import { mkdtemp, rm } from "node:fs/promises";
import { homedir, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { environmentFacts, gitCommit, residentBytes, withoutHome } from "../../src/platform/environment.ts";

describe("environment facts", () => {
  it("name versions, system and memory", async () => {
    const facts = await environmentFacts();
    expect(facts.longtail).toMatch(/^\d+\.\d+\.\d+/);
    expect(facts.dawn).toMatch(/^\d+\.\d+\.\d+/);
    expect(facts.runtime.version).toMatch(/^\d+\.\d+\.\d+/);
    expect(facts.processor.cores).toBeGreaterThan(0);
    expect(facts.memory.available).toBeLessThanOrEqual(facts.memory.total);
    expect(JSON.parse(JSON.stringify(facts))).toEqual(facts);
  });

  it("do not tell the host's name", async () => {
    const text = JSON.stringify(await environmentFacts());
    // A name as short as "vm" occurs in other words by chance.
    if (hostname().length > 4) expect(text).not.toContain(hostname());
  });

  it("write the home folder as ~", () => {
    expect(withoutHome(join(homedir(), "driver.json"))).toBe(join("~", "driver.json"));
  });

  it("have no commit for a folder outside a checkout", async () => {
    const folder = await mkdtemp(join(tmpdir(), "longtail-nogit-"));
    expect(await gitCommit(folder)).toBe(null);
    await rm(folder, { recursive: true });
  });

  it("measure the memory of this process", () => {
    expect(residentBytes()).toBeGreaterThan(10e6);
  });
});
