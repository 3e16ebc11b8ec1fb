// A flag that takes one of a few words.

import { LongtailError } from "../base/errors.ts";

/**
 * The word that a flag was given; the first of `words` where it was not.
 * @throws LongtailError E-ARG-081 for another word
 */
export function choice<T extends string>(value: string | true | undefined, name: string, words: readonly T[]): T {
  if (value === undefined) return words[0]!;
  const found = words.find((word) => word === value);
  if (found) return found;
  throw new LongtailError("E-ARG-081", {
    what: `--${name} takes ${words.join(" or ")}`,
    where: String(value),
    fix: `as in --${name}=${words[0]}`,
  });
}
