// Keys that somebody set by hand and that the command at hand never reads: a run goes on without them, and says so, because a
// key that does nothing is a misunderstanding more often than not.

import type { ConfigWarning } from "./checks.ts";
import type { ResolvedConfig } from "./load.ts";

/** Sections (with a dot at the end) and keys that a command has no use for. */
const UNREAD: Readonly<Record<"align" | "train", readonly string[]>> = {
  train: [
    "align.",
    "eval.",
    "data.items",
    "data.pictures",
    "data.prompt",
    "data.attributes",
    "data.styles",
    "data.exclude_categories",
  ],
  align: [
    "flow.",
    "data.sets",
    "data.resolution",
    "data.buckets",
    "data.bucket_step",
    "data.min_side",
    "data.max_side",
    "data.upscale",
    "data.crop",
    "data.flip",
    "data.background",
    "data.max_megapixels",
    "data.validation_share",
    "data.trigger",
    "data.caption_prefix",
    "data.caption_dropout",
    "data.caption_lines",
    "data.shuffle_tags",
    "data.keep_tags",
    "train.steps",
    "train.batch",
    "train.validate_every",
    "train.validation_pictures",
    "sample.prompts",
  ],
};

/** Warnings for keys of the command line and of the user's own file. */
export function unreadKeys({ origins }: ResolvedConfig, command: "align" | "train"): ConfigWarning[] {
  const other = command === "align" ? "longtail train" : "longtail align";
  const found = [...origins].filter(
    ([key, origin]) =>
      key.includes(".") &&
      origin !== "default" &&
      !origin.startsWith("preset ") &&
      !origin.startsWith("the ") &&
      UNREAD[command].some((entry) => (entry.endsWith(".") ? key.startsWith(entry) : key === entry)),
  );
  if (found.length === 0) return [];
  const keys = found.map(([key]) => key);
  const have = keys.length === 1 ? "has" : "have";
  const text = `${keys.join(", ")} ${have} no effect here; longtail ${command} does not read ${keys.length === 1 ? "it" : "them"}, ${other} does`;
  return [{ code: "E-CFG-034", text }];
}
