// What a score is called. Numbers of HPS v2.0 and v2.1 are not comparable, nor are those of two CLIP models, so that no
// score is ever printed without its model and version.

export type HpsVersion = "2.0" | "2.1";

/** The version that a path names, as the published files and folders do; null where it names none. */
export function hpsVersion(path: string): HpsVersion | null {
  // The file says it better than the folder: HPSv2/HPS_v2.1.pt.
  const found = [...path.matchAll(/hps[-_ ]?v?[-_ ]?2(?:[._]([01]))?(?!\d)/gi)].at(-1);
  return found ? (found[1] === "1" ? "2.1" : "2.0") : null;
}

/** `HPS v2.1`, `PickScore (PickScore_v1)`, `CLIP score (judge)`, `aesthetic score (sac+logos+ava1-l14-linearMSE.pth)`. */
export function scoreLabel(
  kind: "hps" | "clip" | "pickscore" | "aesthetic",
  path: string,
  version: HpsVersion | null = hpsVersion(path),
): string {
  // A model of the hub's cache is known by its own name, not by its commit.
  const plain = path.replace(/models--[^/]*?--([^/]+)\/snapshots\/[^/]+/, "$1");
  const parts = plain.replace(/\/+$/, "").split("/");
  const file = parts.at(-1) || path;
  // A file of a general name is known by its folder.
  const name = /^(?:model|open_clip_(?:model|pytorch_model)|pytorch_model)\./.test(file)
    ? (parts.at(-2) ?? file)
    : file;
  if (kind === "hps") return version ? `HPS v${version}` : `HPS of unknown version (${name})`;
  return `${{ clip: "CLIP score", pickscore: "PickScore", aesthetic: "aesthetic score" }[kind]} (${name})`;
}
