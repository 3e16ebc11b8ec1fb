// The items that a configuration names: the embedded long tail with its pictures, a file of the user's, or the list of a
// folder of prompts that are encoded already.

import { LongtailError } from "../../base/errors.ts";
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
  // Pictures belong to the embedded items alone; a file of the user's has none.
  return { items, data: source === "embedded" ? data : null };
}
