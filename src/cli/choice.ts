// Flags that take one of a few words, or a number.

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

/** A number given as a flag. */
export function numberFlag(
  value: string | true | undefined,
  name: string,
  byDefault: number,
  least: number,
  most: number,
): number {
  if (value === undefined) return byDefault;
  const number = Number(value);
  if (value !== true && Number.isFinite(number) && number >= least && number <= most) return number;
  throw new LongtailError("E-ARG-051", {
    what: `--${name} is not a number between ${least} and ${most}`,
    where: String(value),
    fix: `as in --${name}=${byDefault}`,
  });
}
