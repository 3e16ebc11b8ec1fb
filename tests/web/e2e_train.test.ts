// A run from start to end as a person makes it, in one browser profile: train to a lower loss, keep a LoRA that the command
// line accepts, reload in the middle of another run and go on to the same curve, and open the page without a network.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseLog } from "../../src/web/run_source.ts";
import { longtail } from "../helpers/processes.ts";
import { describeInBrowser, type OpenPage } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { address, button, openLongtail, startTraining, storedLosses, trainingOver } from "./longtail_page.ts";
import { readStoredText } from "./opfs.ts";
import { type Served, serveFolder } from "./server.ts";

const UPDATES = 8;
const SETTINGS = { updates: UPDATES, rank: 8, lr: 0.003 };

/** Validation losses in order: deterministic, so that their fall is learning and no luck. */
async function validationLosses({ page }: OpenPage, run: string): Promise<number[]> {
  const lines = parseLog(await readStoredText(page, `runs/${run}/log.jsonl`));
  return lines.flatMap((line) => (line.kind === "metric" ? [line.values["val_loss"]!] : [])).filter(Number.isFinite);
}

describeInBrowser("a run in the page", () => {
  let served: Served;
  let first: OpenPage;
  let expected: Map<number, number>;
  const folder = mkdtempSync(join(tmpdir(), "longtail-kept-"));
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("ends with a lower loss and a LoRA that the command line accepts", async () => {
    first = await openLongtail(address(served.url, { ...SETTINGS, name: "whole" }));
    await startTraining(first);
    await trainingOver(first, "whole");
    expected = await storedLosses(first, "whole");
    expect([...expected.keys()]).toEqual(Array.from({ length: UPDATES }, (_, i) => i + 1));
    const losses = await validationLosses(first, "whole");
    console.log(`validation loss ${losses.map((x) => x.toFixed(4)).join(", ")}`);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);

    for (const name of ["whole.safetensors", "whole.kohya.safetensors"]) {
      const waiting = first.page.waitForEvent("download");
      await button(first, `Download ${name}`).click();
      const download = await waiting;
      const kept = join(folder, download.suggestedFilename());
      await download.saveAs(kept);
      const verified = await longtail(["lora", "verify", kept]);
      expect(verified.errors).toBe("");
      expect(verified.code).toBe(0);
    }
    await first.close({ keepContext: true });
  }, 900_000);
});
