import { describe, expect, test } from "vitest";
import { expandTemplate } from "../../src/gpu/template.ts";

describe("expandTemplate", () => {
  test("inserts constants and does not expand what it inserted", () => {
    expect(expandTemplate("array<{{T}}, {{ N }}>; {{BODY}}", { T: "f16", N: 4, BODY: "{{T}}" })).toBe(
      "array<f16, 4>; {{T}}",
    );
  });

  test("names an unknown placeholder and its line", () => {
    expect(() => expandTemplate("a\n{{B}}", {})).toThrow(/line 2.*B/);
    expect(() => expandTemplate("//#if FLAG\n//#endif", {})).toThrow(/FLAG/);
  });

  test("does not look at placeholders of a branch that is left out", () => {
    expect(expandTemplate("//#if X\n{{MISSING}}\n//#else\nkept\n//#endif", { X: false })).toBe("kept");
  });

  test("nests conditions, also inside a branch that is left out", () => {
    const source = "//#if A\n//#if B\nab\n//#else\na\n//#endif\n//#else\nnone\n//#endif\n//#if !A\nnot a\n//#endif";
    expect(expandTemplate(source, { A: true, B: true })).toBe("ab");
    expect(expandTemplate(source, { A: 1, B: 0 })).toBe("a");
    expect(expandTemplate(source, { A: "", B: true })).toBe("none\nnot a");
  });

  test("repeats lines with a running number, nested loops and conditions included", () => {
    const source = "//#for r ROWS\n//#for c 2\nv{{r}}{{c}}\n//#endfor\n//#if LAST\nend{{r}}\n//#endif\n//#endfor";
    expect(expandTemplate(source, { ROWS: 2, LAST: true })).toBe("v00\nv01\nend0\nv10\nv11\nend1");
  });

  test("refuses unbalanced and unknown directives", () => {
    expect(() => expandTemplate("//#if A", { A: 1 })).toThrow(/without \/\/#endif/);
    expect(() => expandTemplate("//#endif", {})).toThrow(/without \/\/#if/);
    expect(() => expandTemplate("//#for i 2", {})).toThrow(/without \/\/#endfor/);
    expect(() => expandTemplate("//#while A", { A: 1 })).toThrow(/unknown directive/);
  });
});
