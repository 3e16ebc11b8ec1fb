// What a run says about texts that an encoder does not read as they are written: one warning for all of them, with the
// first few by name.

/** Texts that are named on the terminal. */
const NAMED = 3;

/** The text of warning E-DATA-060, for at least one text. */
export function unknownText(texts: Iterable<string>): string {
  const all = [...texts];
  const named = all.slice(0, NAMED).map((text) => JSON.stringify(text.slice(0, 80)));
  const more = all.length > NAMED ? ` and ${all.length - NAMED} more` : "";
  const have = all.length === 1 ? "has" : "have";
  return `${named.join(", ")}${more} ${have} words that the model's text tables do not hold; they read as nothing`;
}
