// The page as a static host gets it: built once a test run into a temporary folder that all test files share.
// LONGTAIL_TEST_PAGE names a folder that is built already.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { build } from "vite";

const root = resolve(import.meta.dirname, "../..");
let folder: Promise<string> | undefined;

/** The folder of the built page; the first test file that asks builds it, others wait for it. */
export function builtPage(): Promise<string> {
  folder ??= process.env.LONGTAIL_TEST_PAGE ? Promise.resolve(process.env.LONGTAIL_TEST_PAGE) : buildOnce();
  return folder;
}

async function buildOnce(): Promise<string> {
  // Test files are processes of one parent, the test run.
  const home = join(tmpdir(), "longtail-test-page");
  const mine = join(home, String(process.ppid));
  mkdirSync(home, { recursive: true });
  for (const name of readdirSync(home)) {
    if (!isAlive(Number.parseInt(name, 10))) rmSync(join(home, name), { recursive: true, force: true });
  }
  const lock = `${mine}.lock`;
  for (;;) {
    if (existsSync(join(mine, "index.html"))) return mine;
    try {
      mkdirSync(lock);
      break;
    } catch {
      const owner = Number(existsSync(join(lock, "pid")) ? readFileSync(join(lock, "pid"), "utf8") : process.pid);
      if (!isAlive(owner)) rmSync(lock, { recursive: true, force: true });
      await new Promise((done) => setTimeout(done, 200));
    }
  }
  try {
    if (existsSync(join(mine, "index.html"))) return mine;
    writeFileSync(join(lock, "pid"), String(process.pid));
    // The page that users get: the test run's own setting would make it a development build.
    const setting = process.env.NODE_ENV;
    process.env.NODE_ENV = "production";
    await build({
      configFile: join(root, "vite.config.ts"),
      root: join(root, "src/web"),
      logLevel: "warn",
      build: { outDir: `${mine}.building`, emptyOutDir: true },
    });
    if (setting === undefined) delete process.env.NODE_ENV;
    else process.env.NODE_ENV = setting;
    renameSync(`${mine}.building`, mine);
    return mine;
  } finally {
    rmSync(lock, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
