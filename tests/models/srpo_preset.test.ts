// SRPO's preset in its real size, without weights: FLUX.1 dev, HPS v2.1 and PickScore declare what they hold in each phase of an
// alignment, so that a GPU's owner is told beforehand what fits.

import { beforeAll, describe, expect, it } from "vitest";
import { alignLadder, planTexts } from "../../src/cli/align/plan_phases.ts";
import { promptItem } from "../../src/data/prompts.ts";
import { OpenClip, openClipConfig } from "../../src/models/clip/open_clip.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { projectSources } from "../../src/runs/project.ts";
import { Session } from "../../src/tensor/session.ts";
import { NodeFiles } from "../helpers/files.ts";
import { desktop, FOLDER, fluxDev, GIB, plannedGib } from "../helpers/flux_dev.ts";
import type { HeaderFiles } from "../helpers/header_files.ts";

/** ViT-H/14, which HPS v2.1 and PickScore are made of. */
const VIT_H = {
  embed_dim: 1024,
  vision_cfg: { image_size: 224, layers: 32, width: 1280, head_width: 80, patch_size: 14 },
  text_cfg: { context_length: 77, vocab_size: 49408, width: 1024, heads: 16, layers: 24 },
};

function addClip(files: HeaderFiles, folder: string): void {
  const session = new Session({ ...desktop, maxBindingBytes: Number.MAX_SAFE_INTEGER });
  const parameters = new Parameters(session.pool(folder, "weights"));
  new OpenClip(parameters, openClipConfig({ model_cfg: VIT_H }, folder));
  files.addJson(`${folder}/open_clip_config.json`, { model_cfg: VIT_H });
  files.addWeights(
    `${folder}/open_clip_model.safetensors`,
    [...parameters.variables].map(([name, { shape }]) => [name, shape] as const),
  );
}

describe("srpo-hps in its real size", () => {
  const items = Array.from({ length: 1000 }, (_, i) => promptItem(`prompt number ${i}`, i, "a test"));
  let files: HeaderFiles;
  let config: Config;
  beforeAll(async () => {
    files = fluxDev();
    addClip(files, "hps");
    addClip(files, "pick");
    const overrides = [
      { key: "model.pipeline", value: FOLDER },
      { key: "eval.judge", value: "pick" },
    ];
    const found = (await loadConfig({ source: "srpo-hps", overrides }, projectSources(new NodeFiles()))).config;
    const rewards = found.align.rewards.map((reward) => ({ ...reward, path: "hps" }));
    config = { ...found, align: { ...found.align, rewards } };
  });

  it("trains on a card of 24 GiB, because what reads texts is gone by then", async () => {
    const texts = await planTexts(files, config, desktop, items, null);
    // 19 updates of 32 prompts, 16 that are judged, some of them twice.
    expect(texts.prompts).toBeGreaterThan(608);
    expect(texts.prompts).toBeLessThanOrEqual(19 * 32 + 16);
    plannedGib("encoders", texts.encoders);
    plannedGib("text towers", texts.towers);
    expect(texts.encoders / GIB).toBeGreaterThan(8.5);
    expect(texts.encoders / GIB).toBeLessThan(11);
    // Two text towers of 303 million parameters as halves, tables in their files.
    expect(texts.towers / GIB).toBeGreaterThan(1.1);
    expect(texts.towers / GIB).toBeLessThan(1.4);
    // A caption's 512 × 4096 + 768 numbers of f32.
    expect(texts.cached).toBe(texts.prompts * 4 * (512 * 4096 + 768));
    const rungs = await alignLadder(files, config, desktop, texts, 24 * GIB);
    expect(rungs.map(({ change }) => change.join(" "))).toEqual([
      "",
      "--device.offload=blocks",
      "--model.image_size=512",
      "--model.image_size=384",
    ]);
    for (const { change, bytes } of rungs) plannedGib(change.join(" ") || "720 pixels", bytes);
    expect(rungs[0]!.bytes / GIB).toBeGreaterThan(18);
    expect(rungs[0]!.bytes / GIB).toBeLessThan(20);
    expect(rungs[1]!.bytes / GIB).toBeLessThan(rungs[0]!.bytes / GIB - 3);
    expect(rungs[3]!.bytes / GIB).toBeLessThan(14);
    expect(rungs.every(({ fits }) => fits)).toBe(true);
  }, 120_000);
});
