// Names of stored pictures and sets. A name that comes from a stranger's archive is shown, downloaded and unpacked again on
// any system, so it is made harmless once, here: one folder deep, letters of any script, unique without regard to case.

import { LongtailError } from "../../base/errors.ts";

/** Letters of a picture's name, its ending not counted. */
const LONGEST_STEM = 80;
/** Names that Windows keeps for its devices. */
const DEVICES = /^(con|prn|aux|nul|com\d|lpt\d)$/i;
/** What cameras, screens and converters call their pictures: no word of it says what is seen. */
const EMPTY_WORDS =
  /^(img|image|dsc|dscn|dscf|pxl|mvimg|photo|picture|screenshot|screen|shot|scan|pasted|paste|camera|untitled|unnamed|download|copy|file|wa|at|of|edited|crop|cropped|\d+|[a-f0-9]{6,})$/i;

/** A name's parts: folders joined by a dash, and the last part without its ending. */
function stemOf(name: string): string {
  const parts = name.split("/").filter((part) => part !== "");
  const last = (parts.at(-1) ?? "").replace(/\.[a-z0-9]{1,5}$/i, "");
  return [...parts.slice(0, -1), last].join("-");
}

/** The stem under which a picture is stored: letters, digits, spaces, dots and dashes. */
export function storedStem(name: string): string {
  const clean = stemOf(name.normalize("NFC"))
    .replace(/[^\p{L}\p{M}\p{N} ._-]+/gu, "_")
    .replace(/^[. ]+/, "");
  const stem = [...clean]
    .slice(0, LONGEST_STEM)
    .join("")
    .replace(/[. ]+$/, "");
  if (stem === "") return "picture";
  return DEVICES.test(stem) ? `${stem}_` : stem;
}

/** The stem, with a number behind it where `taken` (lower case) holds it already; it is added to `taken`. */
export function uniqueStem(stem: string, taken: Set<string>): string {
  for (let n = 1; ; n++) {
    const name = n === 1 ? stem : `${stem}-${n}`;
    if (taken.has(name.toLowerCase())) continue;
    taken.add(name.toLowerCase());
    return name;
  }
}

/** The words of a file's name, `red_bike-03.jpg` → `red bike`; empty where no word says anything. */
export function captionFromName(name: string): string {
  const last = name.normalize("NFC").split("/").at(-1) ?? "";
  return last
    .replace(/\.[a-z0-9]{1,5}$/i, "")
    .replace(/[\u0000-\u001f\u007f]/g, " ")
    .split(/[\s_.,;+()[\]{}-]+/u)
    .filter((word) => word !== "" && !EMPTY_WORDS.test(word))
    .join(" ")
    .slice(0, 200);
}

/**
 * The folder of a set. Names are a few words; digits with an underline in front would be a number of repeats to the reader.
 * @throws E-DATA-057 the name cannot be a folder's
 */
export function setFolder(name: string): string {
  const isName = /^[\p{L}\p{N}][\p{L}\p{M}\p{N} ._-]{0,63}$/u.test(name) && !/[. ]$/.test(name) && !DEVICES.test(name);
  if (isName && !/^\d+_/.test(name)) return `pictures/${name}`;
  throw new LongtailError("E-DATA-057", {
    what: "the set cannot have this name",
    where: JSON.stringify(name.slice(0, 80)),
    why: "a name is up to 64 letters, digits, spaces and dashes, and does not begin with a number and an underline",
    fix: 'choose a name such as "my pictures"',
  });
}
