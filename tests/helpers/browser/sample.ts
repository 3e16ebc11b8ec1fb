// Where LONGTAIL_SAMPLE says which part of the tests to keep (0.25), the others are left out: a draw by every test's name
// and LONGTAIL_SEED, so that a test that failed is drawn again.

import process from "node:process";
import { beforeEach } from "vitest";

declare module "vitest" {
  interface TaskMeta {
    /** Not in the sample: scripts/test.mjs does not count it as skipped. */
    leftOut?: boolean;
  }
}

const part = Number(process.env.LONGTAIL_SAMPLE ?? 1);
const seed = process.env.LONGTAIL_SEED ?? "1";

/** In [0, 1), from FNV-1a with a last mixing: names that differ in one letter are far apart. */
function draw(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

beforeEach(({ task, skip }) => {
  if (part >= 1 || draw(`${seed} ${task.file.name} ${task.name}`) < part) return;
  task.meta.leftOut = true;
  skip();
});
