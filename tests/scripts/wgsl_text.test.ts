import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { withoutComments } from "../../scripts/wgsl_text.mjs";

it("kernels lose comments and indentation for the page, and keep the template's own lines", () => {
  expect(withoutComments("// head\n\nfn f() {\n  //#if X\n  let a = 1; // one\n  //#end\n}\n")).toBe(
    "fn f() {\n//#if X\nlet a = 1;\n//#end\n}",
  );
  let before = 0;
  let after = 0;
  for (const name of readdirSync("shaders", { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".wgsl")) continue;
    const text = readFileSync(`shaders/${name}`, "utf8");
    const bare = withoutComments(text);
    expect(bare.match(/\/\/(?!#)/), name).toBe(null);
    expect(bare.match(/^\/\/#.*$/gm)?.length, name).toBe(text.match(/^\s*\/\/#.*$/gm)?.length);
    before += text.length;
    after += bare.length;
  }
  expect(after).toBeLessThan(0.9 * before);
});
