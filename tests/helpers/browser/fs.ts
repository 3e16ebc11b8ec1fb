// `node:fs` for tests that run in a page: the few project files that kernel tests read, as they were when the run began.

/// <reference types="vite/types/importMeta.d.ts" />

const texts = import.meta.glob<string>(
  ["/shaders/*.wgsl", "/src/ops/*.ts", "/docs/operations.md", "/tests/fixtures/flux1_small/config.json"],
  {
    query: "?raw",
    import: "default",
    eager: true,
  },
);
const others = import.meta.glob("/tests/fixtures/{clip_preprocess,flux1_small}/*", { query: "?url" });

export function existsSync(path: string): boolean {
  return path in texts || path in others;
}

export function readFileSync(path: string): string {
  const text = texts[path];
  if (text === undefined) throw new Error(`${path} does not travel with the page (tests/helpers/browser/fs.ts)`);
  return text;
}

export function readdirSync(path: string): string[] {
  const prefix = `${path}/`;
  return Object.keys(texts)
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length));
}
