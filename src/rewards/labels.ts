// What a score is called. Numbers of HPS v2.0 and v2.1 are not comparable, nor are those of two CLIP models, so that no
// score is ever printed without its model and version.

export type HpsVersion = "2.0" | "2.1";

/** The version that a path names, as the published files and folders do; null where it names none. */
export function hpsVersion(path: string): HpsVersion | null {
  const found = /hps[-_ ]?v?[-_ ]?2(?:[._]([01]))?(?!\d)/i.exec(path);
  return found ? (found[1] === "1" ? "2.1" : "2.0") : null;
}

/** `HPS v2.1`, `PickScore (PickScore_v1)`, `CLIP score (judge)`, `aesthetic score (sac+logos+ava1-l14-linearMSE.pth)`. */
export function scoreLabel(
  kind: "hps" | "clip" | "pickscore" | "aesthetic",
  path: string,
  version: HpsVersion | null = hpsVersion(path),
): string {
  const parts = path.replace(/\/+$/, "").split("/");
  const file = parts.at(-1) || path;
  // A file of a general name is known by its folder.
  const name = /^(?:model|open_clip_(?:model|pytorch_model)|pytorch_model)\./.test(file)
    ? (parts.at(-2) ?? file)
    : file;
  if (kind === "hps") return version ? `HPS v${version}` : `HPS of unknown version (${name})`;
  return `${{ clip: "CLIP score", pickscore: "PickScore", aesthetic: "aesthetic score" }[kind]} (${name})`;
}
