import { expect, test } from "vitest";
import { jsonLine, parseJson, parseJsonLines } from "../../src/formats/jsonl.ts";

test("lines are numbered as an editor numbers them and empty ones are passed over", () => {
  expect(parseJsonLines('\ufeff{"a":1}\r\n\n[2]\n', "x.jsonl")).toEqual([
    { line: 1, value: { a: 1 } },
    { line: 3, value: [2] },
  ]);
});

test("a broken line is refused with file and line", () => {
  expect(() => parseJsonLines('{"a":1}\n{"a":', "x.jsonl")).toThrow(/E-DATA-010 x\.jsonl:2/);
  expect(() => parseJson("{", "items.json")).toThrow(/E-DATA-010 items\.json/);
});

test("a torn last line of a log can be left out, a broken one before it cannot", () => {
  expect(parseJsonLines('{"a":1}\n{"a":', "log.jsonl", { tornTail: true })).toHaveLength(1);
  expect(() => parseJsonLines('{"a":\n{"a":1}\n', "log.jsonl", { tornTail: true })).toThrow(/log\.jsonl:1/);
});

test("a line written is a line read", () => {
  expect(parseJsonLines(jsonLine({ text: "a\nb" }), "x")).toEqual([{ line: 1, value: { text: "a\nb" } }]);
});
