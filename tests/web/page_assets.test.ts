// What the build makes of the project's files: the list, what a first picture fetches, and the smaller tokenizers, which give the
// same ids as the full ones.

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { collectAssets, DRAW_BUDGET, sizeTable, transferOf } from "../../scripts/page_assets.mjs";
import { shellFiles, weighPage, withShell } from "../../scripts/page_shell.mjs";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { T5Tokenizer } from "../../src/data/tokenizers/t5.ts";
import type { AssetManifest } from "../../src/web/files/asset_stream.ts";
import { MemoryFiles } from "../../src/web/files/memory.ts";
import { MODELS, NodeFiles, OWN_FIXTURES, ROOT } from "../helpers/files.ts";
import { wildText } from "../helpers/wild_text.ts";

const CLIP = "models/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz";
const T5 = "models/tokenizers/t5/tokenizer.json";
const made = collectAssets();
const manifest = made.manifest as unknown as AssetManifest;
const contents: Map<string, Uint8Array> = made.contents;

/** The content of a path as the page reads it. */
function contentOf(path: string): Uint8Array {
  const entry = manifest.files[path]!;
  const sent = contents.get(entry.file)!;
  return new Uint8Array(entry.encoding === "gzip" ? gunzipSync(sent) : sent);
}

const folder = mkdtempSync(join(tmpdir(), "longtail-shell-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the list of what comes with the page", () => {
  test("names every file with the size and SHA-256 of its content, at an address made of what is sent", () => {
    for (const [path, entry] of Object.entries(manifest.files)) {
      const content = contentOf(path);
      expect([path, content.length]).toEqual([path, entry.bytes]);
      expect([path, createHash("sha256").update(content).digest("hex")]).toEqual([path, entry.sha256]);
      expect(contents.get(entry.file)!.length).toBe(entry.transfer);
      expect(entry.file).toMatch(/^data\/[0-9a-f]{20}\.bin$/);
    }
  });

  test("has the files as they are, the tokenizers apart", () => {
    for (const path of Object.keys(manifest.files)) {
      if (path === CLIP || path === T5) continue;
      expect(Buffer.compare(contentOf(path), readFileSync(join(ROOT, path))), path).toBe(0);
    }
  });

  test("has what the embedded model needs, the presets and the licences, and nothing of the benchmarks", () => {
    const names = Object.keys(manifest.files);
    for (const wanted of [
      "models/embedded/reward/open_clip_model.safetensors",
      "models/embedded/judge/open_clip_model.safetensors",
      "models/embedded/items.json",
      "models/embedded/pictures-noto.png",
      "models/taef2/LICENSE",
      "models/licences/Apache-2.0.txt",
      "presets/lora.toml",
      "presets/embedded.toml",
    ])
      expect(names).toContain(wanted);
    expect(names.filter((name) => /^models\/(cure|emoji)/.test(name))).toEqual([]);
  });

  test(`lets a first picture fetch no more than ${DRAW_BUDGET / 1e6} MB`, () => {
    const draw = transferOf(manifest, "draw");
    console.log(sizeTable(manifest).join("\n"));
    expect(draw).toBeLessThanOrEqual(DRAW_BUDGET);
    expect(manifest.groups["draw"]).toContain("models/embedded/transformer/diffusion_pytorch_model.safetensors");
    expect(manifest.groups["draw"]).toContain(CLIP);
    expect(manifest.groups["draw"]).toContain(T5);
  });
});

describe("the page's tokenizers", () => {
  const files = new NodeFiles();
  const page = new MemoryFiles();
  const fixtures = (name: string): { text: string }[] =>
    JSON.parse(readFileSync(join(OWN_FIXTURES, "tokenizers", name), "utf8"));
  const texts = [
    "",
    ...fixtures("fixtures_clip.json").map(({ text }) => text),
    ...fixtures("fixtures_t5.json").map(({ text }) => text),
    ...(JSON.parse(readFileSync(join(OWN_FIXTURES, "embedded/fixture.json"), "utf8")).texts as string[]),
    ...Array.from({ length: 4000 }, (_, i) => wildText(i)),
  ];

  test("give the ids of the full ones for thousands of texts, wild ones too", async () => {
    await page.writeAtomic("clip.gz", contentOf(CLIP));
    await page.writeAtomic("t5.json", contentOf(T5));
    const clip = await ClipTokenizer.load(page, "clip.gz");
    const fullClip = await ClipTokenizer.load(files, join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz"));
    const t5 = await T5Tokenizer.load(page, "t5.json");
    const fullT5 = await T5Tokenizer.load(files, join(MODELS, "tokenizers/t5/tokenizer.json"));
    expect(texts.filter((text) => clip.encode(text).join() !== fullClip.encode(text).join())).toEqual([]);
    // Slower, and shown to be the same file below.
    const fewer = texts.filter((_, i) => i % 3 === 0);
    expect(fewer.filter((text) => t5.encode(text).join() !== fullT5.encode(text).join())).toEqual([]);
    expect(texts.length).toBeGreaterThan(4000);
  });

  test("are the same in every number and string", () => {
    expect(JSON.parse(new TextDecoder().decode(contentOf(T5)))).toEqual(
      JSON.parse(readFileSync(join(MODELS, "tokenizers/t5/tokenizer.json"), "utf8")),
    );
    const lines = (bytes: Uint8Array) => gunzipSync(bytes).toString("utf8").split("\n");
    const full = lines(readFileSync(join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz")));
    expect(lines(contentOf(CLIP))).toEqual(full.slice(0, 48_895));
  });
});

describe("what surrounds the page", () => {
  const put = (name: string, text: string | Uint8Array) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  };
  put(
    "index.html",
    '<link rel="stylesheet" href="./assets/a.css"><script type="module" src="./assets/main.js"></script>',
  );
  put("assets/main.js", 'import{a}from"./part.js";import"./side.js";import("./lazy.js");a();');
  put("assets/part.js", `export const a="${"part".repeat(99)}";`);
  put("assets/side.js", "0;");
  put("assets/lazy.js", `"${"lazy".repeat(9999)}";`);
  put("assets/a.css", "a{}");
  put("data/w.bin", "weights");
  put("assets.json", "{}");
  put("recorded/large.png", new Uint8Array(1_000_001));
  put("_headers", "/*");
  put("service_worker.js", "0;");

  test("the service worker keeps the page's own files, not the weights, and nothing large", () => {
    expect(shellFiles(folder)).toEqual([
      "assets.json",
      "assets/a.css",
      "assets/lazy.js",
      "assets/main.js",
      "assets/part.js",
      "assets/side.js",
      "index.html",
    ]);
  });

  test("its version changes with any of them", () => {
    const versionOf = () => /LONGTAIL_VERSION="(\w+)"/.exec(withShell("0;", folder))![1];
    const before = versionOf();
    expect(versionOf()).toBe(before);
    put("assets/side.js", "1;");
    expect(versionOf()).not.toBe(before);
    expect(() => withShell('import"./x.js";', folder)).toThrow(/plain script/);
  });

  test("the first load is what the front page pulls in, without what is loaded later", () => {
    const { files, first } = weighPage(folder);
    const names = files.filter((file: { first: boolean }) => file.first).map((file: { name: string }) => file.name);
    expect(names.sort()).toEqual(["assets/a.css", "assets/main.js", "assets/part.js", "assets/side.js", "index.html"]);
    expect(first).toBe(
      files
        .filter((file: { first: boolean }) => file.first)
        .reduce((sum: number, file: { gzip: number }) => sum + file.gzip, 0),
    );
  });
});
