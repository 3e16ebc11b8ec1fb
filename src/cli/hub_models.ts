// Models that a configuration names by ids of the hub: fetched before anything else is opened. What comes back names files and
// folders alone, so that the rooms below know no hub.

import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import { chooseModelFiles, type ModelHub } from "../models/hub_id.ts";
import type { Config } from "../runs/config/schema.ts";

/** Where a model lies that is named by a path, "embedded", or a hub id, which is fetched. */
export type LocateModel = (text: string, parts?: string[] | null, bare?: string[]) => Promise<string>;

/** Nothing that could send a request is loaded before an id is met. */
export function modelLocator(files: FileStore, { model }: Config, emit: EventSink): LocateModel {
  const client = async (): Promise<ModelHub> => {
    const { HubClient, hubSettings } = await import("../platform/hub.ts");
    return new HubClient(await hubSettings(model.offline ? { offline: true } : {}));
  };
  return async (text, parts = null, bare = []) => {
    if (["auto", "embedded", "none"].includes(text) || (await files.exists(text))) return text;
    const { locateModel } = await import("../platform/hub.ts");
    return await locateModel(files, client, text, chooseModelFiles(parts, bare), emit);
  };
}

/**
 * The configuration with hub ids replaced by the folders that they were fetched into; without ids it is returned as it is.
 * @param scorers whether the rewards and the judge are needed too
 */
export async function withLocalModels(
  files: FileStore,
  config: Config,
  emit: EventSink,
  scorers = false,
): Promise<Config> {
  const { model, align, eval: evaluation } = config;
  const at = modelLocator(files, config, emit);
  const swapped = model.transformer !== "auto" ? ["transformer"] : [];
  const pipeline = await at(model.pipeline, null, swapped);
  const transformer = await at(model.transformer, ["transformer"]);
  const vae = await at(model.vae, ["vae"]);
  const local = { ...config, model: { ...model, pipeline, transformer, vae } };
  if (!scorers) return local;
  const rewards = [];
  for (const reward of align.rewards) rewards.push({ ...reward, path: await at(reward.path) });
  return { ...local, align: { ...align, rewards }, eval: { ...evaluation, judge: await at(evaluation.judge) } };
}
