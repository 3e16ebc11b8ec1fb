// The project's own lint must find what it is there for and stay silent about look-alikes.

import { describe, expect, it } from "vitest";
import { blankText, importsOf, lintFile, ROOMS } from "../../scripts/lint-rooms.mjs";

const HEAD = "// What it is for.\n";
const messages = (file: string, source: string): string[] => lintFile(file, source).map((finding) => finding.message);
const inRoom = (room: string, code: string): string[] => messages(`src/${room}/a.ts`, HEAD + code);

describe("imports between rooms", () => {
  it("may point to the same room, to a lower one and to kernels", () => {
    expect(inRoom("ops", 'import { a } from "../tensor/b.ts";')).toEqual([]);
    expect(inRoom("ops", 'import { a } from "./b.ts";')).toEqual([]);
    expect(inRoom("ops", 'import a from "../../shaders/b.wgsl" with { type: "text" };')).toEqual([]);
    expect(
      inRoom(
        "cli",
        ROOMS.filter((room) => room !== "cli")
          .map((room) => `import "../${room}/b.ts";`)
          .join("\n"),
      ),
    ).toEqual([]);
    expect(messages("src/ops/deep/a.ts", `${HEAD}import { a } from "../../base/b.ts";`)).toEqual([]);
  });

  it.each([
    ["base", 'import { a } from "../gpu/b.ts";'],
    ["gpu", 'import type { A } from "../tensor/b.ts";'],
    ["tensor", 'export * from "../ops/b.ts";'],
    ["ops", 'const a = await import("../cli/b.ts");'],
    ["ops", 'import "../platform/b.ts";'],
    ["formats", 'import { a } from "../data/b.ts";'],
    ["evaluation", 'import { a } from "../tensor/b.ts";'],
    ["web", 'import { a } from "../platform/b.ts";'],
    ["gpu", 'import {\n  a,\n  b,\n} from "../ops/b.ts";'],
  ])("from %s upwards are found: %s", (room, code) => {
    expect(inRoom(room, code)).toHaveLength(1);
    expect(inRoom(room, code)[0]).toMatch(/must not import room/);
  });

  it("may not leave src", () => {
    expect(inRoom("ops", 'import { a } from "../../tests/b.ts";')[0]).toMatch(/outside src/);
  });

  it("name packages barely", () => {
    expect(inRoom("cli", 'import { z } from "zod";')).toEqual([]);
    expect(inRoom("cli", 'import { z } from "npm:zod";')[0]).toMatch(/bare name/);
  });

  it("are not seen in comments and strings", () => {
    expect(inRoom("base", '// import { a } from "../gpu/b.ts";')).toEqual([]);
    expect(inRoom("base", 'const text = `import { a } from "../gpu/b.ts"`;')).toEqual([]);
    expect(importsOf('const a = "from"; import { b } from "./c.ts";')).toMatchObject([{ specifier: "./c.ts" }]);
  });
});

describe("platform names", () => {
  it.each([
    "Deno.exit(1);",
    "const a = process.env;",
    "window.open();",
    "const a = document.body;",
    "const a = `${process.cwd()}`;",
    "globalThis.process;",
    "const a = 4 / Deno.args.length / 2;",
    'import { readFile } from "node:fs/promises";',
  ])("are found outside the platform rooms: %s", (code) => {
    expect(inRoom("training", code)).toHaveLength(1);
    expect(inRoom("platform", code)).toEqual([]);
    expect(inRoom("cli", code)).toEqual([]);
  });

  it.each([
    "this.process.run();",
    "const window = 7; use(window);",
    "const options = { document: 1, process: 2 };",
    'const text = "Deno.exit(1)";',
    "// process.exit ends it",
    "/* window.open */",
    "const expression = /process.env/;",
    "postprocess.run();",
  ])("are not confused with look-alikes: %s", (code) => {
    expect(inRoom("training", code)).toEqual([]);
  });

  it("are reported with their line", () => {
    expect(lintFile("src/ops/a.ts", `${HEAD}\n\nDeno.exit();\n`)).toMatchObject([{ file: "src/ops/a.ts", line: 4 }]);
  });
});

describe("heads of files", () => {
  it("are comments in source files and kernels", () => {
    expect(messages("src/ops/a.ts", "export const a = 1;")[0]).toMatch(/does not start with a comment/);
    expect(messages("shaders/a.wgsl", "enable f16;")[0]).toMatch(/does not start with a comment/);
    expect(messages("shaders/lib/a.wgsl", "// y = x W\nenable f16;")).toEqual([]);
    expect(messages("src/ops/a.ts", "/** For this. */\nexport const a = 1;")).toEqual([]);
    expect(messages("tests/ops/a.test.ts", "export const a = 1;")).toEqual([]);
  });

  it("belong to files of known rooms", () => {
    expect(messages("src/attic/a.ts", HEAD)[0]).toMatch(/is not a room/);
  });
});

describe("paths of one machine", () => {
  // Put together here, so that this file passes the lint itself.
  const slash = "/";

  it.each([
    `${slash}home${slash}anna/x`,
    `${slash}Users${slash}anna`,
    `${slash}root${slash}x`,
    "C:\\\\" + "Users\\\\anna",
  ])("are found in every text file: %s", (place) => {
    expect(messages("docs/a.md", `see ${place}`)).toHaveLength(1);
    expect(messages("scripts/a.mjs", `open("${place}");`)).toHaveLength(1);
  });

  it("are not seen in system folders, addresses and relative paths", () => {
    for (const text of ["/usr/share/vulkan", "https://example.org/home/page", "../work/x", "src/root/a", "/dev/dri"]) {
      expect(messages("docs/a.md", `see ${text}`)).toEqual([]);
    }
  });
});

describe("blanking", () => {
  it("keeps length, lines and the code inside templates", () => {
    const source = 'a("x\\"y"); // c\nb(`q${f({ k: "v" })}r`); /* d\n */ c = e / f / g; h(/[/"]/g);';
    const blanked = blankText(source);
    expect(blanked).toHaveLength(source.length);
    expect(blanked.split("\n")).toHaveLength(3);
    expect(blanked).toContain("f({ k:");
    expect(blanked).toContain("c = e / f / g;");
    expect(blanked).not.toMatch(/[xyqrdv]/);
  });
});
