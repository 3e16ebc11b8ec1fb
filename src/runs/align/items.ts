// The items that a configuration names: the embedded long tail with its pictures, a file of the user's, or the list of a
// folder of prompts that are encoded already.

import { LongtailError, nearestName } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { dirname } from "../../base/paths.ts";
import { EmbeddedData } from "../../data/embedded.ts";
import type { PromptEmbeddings } from "../../data/prompt_embeddings.ts";
import { type PromptItem, readPrompts } from "../../data/prompts.ts";
import type { Config } from "../config/schema.ts";
import { embeddedPath } from "../project.ts";

/** @param stored the folder that `openStoredPrompts` found, whose captions are the items */
export async function loadItems(
  files: FileStore,
  config: Config,
  stored: PromptEmbeddings | null = null,
): Promise<{ items: PromptItem[]; data: EmbeddedData | null }> {
  const { items: source, pictures, exclude_categories: excluded } = config.data;
  let data: EmbeddedData | null = null;
  if (pictures !== "none") {
    const folder = embeddedPath(pictures, "embedded");
    data = await EmbeddedData.load(files, folder.endsWith(".json") ? dirname(folder) : folder);
  }
  const all = stored
    ? stored.items
    : source === "embedded"
      ? (data ?? (await EmbeddedData.load(files, embeddedPath("embedded", "embedded")))).items
      : await readPrompts(files, source);
  const drop = new Set(excluded.map((c) => c.replaceAll("_", " ").toLowerCase()));
  const items = all.filter((item) => !drop.has(item.category.toLowerCase()));
  if (!items.some((item) => item.tail)) {
    throw new LongtailError("E-DATA-036", {
      what: "no tail item is left to align",
      where: source,
      fix: "remove entries of data.exclude_categories, or mark items with tail: true",
    });
  }
  checkNames(items, config.align.items, source);
  // Pictures belong to the embedded items alone; a file of the user's has none.
  return { items, data: source === "embedded" ? data : null };
}

/** @throws E-CFG-056 a name of align.items is no tail item of the list */
function checkNames(items: readonly PromptItem[], names: readonly string[], source: string): void {
  const tail = new Set(items.filter((item) => item.tail).map((item) => item.item));
  const wrong = names.find((name) => !tail.has(name));
  if (wrong === undefined) return;
  const isHead = items.some((item) => item.item === wrong);
  const near = nearestName(wrong, tail);
  throw new LongtailError("E-CFG-056", {
    what: `there is no tail item ${JSON.stringify(wrong)}`,
    where: "align.items",
    why: isHead ? "it is a head item: those measure harm and are not aligned" : `the items are those of ${source}`,
    fix:
      !isHead && near ? `did you mean ${JSON.stringify(near)}?` : "take names of tail items, or leave the list empty",
  });
}
