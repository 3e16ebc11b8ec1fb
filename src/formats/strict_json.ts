// JSON for headers of files that strangers made. JSON.parse hides a key that comes twice, turns 2^53 + 1 into its
// neighbour, accepts half a surrogate pair and lets `__proto__` change an object; a header that decides which bytes are
// read must not be open to any of that. Objects come back as lists of entries and numbers as their text.

export class JsonNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export class JsonObject {
  readonly entries: [string, Json][] = [];
}

export type Json = null | boolean | string | JsonNumber | JsonObject | Json[];

/** What is wrong with a text that is not JSON; `message` says what was found where. */
export class JsonError extends Error {}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** Values of one entry that is handed out: a megabyte of text could otherwise become a hundred of objects. */
const MOST_VALUES = 1_000_000;
const WORDS = [
  ["null", null],
  ["true", true],
  ["false", false],
] as const;
const isDigit = (code: number) => code >= 48 && code <= 57;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Parses one JSON value that fills the whole text, in time proportional to its length.
 * @param depth how many lists and objects may lie in one another (the reference reader of safetensors allows 127)
 * @param take receives the entries of the outermost object one by one, which is then returned empty; a header of a
 *   million tensors would otherwise lie in memory as a tree before the first is looked at. One entry has at most a
 *   million values then
 * @throws JsonError
 */
export function parseStrictJson(text: string, depth = 127, take?: (name: string, value: Json) => void): Json {
  let at = 0;
  let values = 0;

  const fail = (expected: string): never => {
    const found = at < text.length ? JSON.stringify(text.slice(at, at + 12)) : "the end";
    throw new JsonError(`expected ${expected} at character ${at}, found ${found}`);
  };

  const space = () => {
    while (at < text.length) {
      const code = text.charCodeAt(at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
      at++;
    }
  };

  const hex4 = (): number => {
    const digits = text.slice(at, at + 4);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail("four hexadecimal digits");
    at += 4;
    return Number.parseInt(digits, 16);
  };

  const string = (): string => {
    at++;
    let out = "";
    for (;;) {
      const from = at;
      let code = text.charCodeAt(at);
      // A comparison with NaN, behind the end of the text, is false.
      while (code !== 34 && code !== 92 && code >= 32) code = text.charCodeAt(++at);
      const plain = text.slice(from, at);
      const mark = text[at];
      if (mark === '"') {
        at++;
        return out === "" ? plain : out + plain;
      }
      out += plain;
      if (mark !== "\\") fail("the end of a string");
      const letter = text[at + 1] ?? "";
      at += 2;
      if (letter === "u") {
        const unit = hex4();
        if (unit >= 0xd800 && unit <= 0xdfff) {
          if (unit > 0xdbff || text.slice(at, at + 2) !== "\\u") fail("a whole surrogate pair");
          at += 2;
          const low = hex4();
          if (low < 0xdc00 || low > 0xdfff) fail("a whole surrogate pair");
          out += String.fromCharCode(unit, low);
        } else out += String.fromCharCode(unit);
      } else if (Object.hasOwn(ESCAPES, letter)) out += ESCAPES[letter];
      else fail("an escape of JSON");
    }
  };

  /** Digits alone, as headers have them, without the cost of a pattern; null where it may be more than that. */
  const wholeNumber = (): string | null => {
    let end = at;
    let code = text.charCodeAt(end);
    if (code === 48 && isDigit(text.charCodeAt(at + 1))) return null;
    while (isDigit(code)) code = text.charCodeAt(++end);
    if (end === at || code === 46 || code === 101 || code === 69) return null;
    const digits = text.slice(at, end);
    at = end;
    return digits;
  };

  const value = (left: number): Json => {
    if (++values > MOST_VALUES && take !== undefined)
      throw new JsonError(`more than ${MOST_VALUES} values in one entry`);
    space();
    const first = text[at];
    if (first === '"') return string();
    if (first === "{" || first === "[") {
      if (left === 0) throw new JsonError(`more than ${depth} lists and objects in one another`);
      return first === "{" ? object(left - 1) : list(left - 1);
    }
    for (const [word, meaning] of WORDS) {
      if (first === word[0] && text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    const digits = wholeNumber();
    if (digits !== null) return new JsonNumber(digits);
    NUMBER.lastIndex = at;
    const number = NUMBER.exec(text)?.[0];
    if (number === undefined) return fail("a value");
    at += number.length;
    return new JsonNumber(number);
  };

  const object = (left: number): JsonObject => {
    const found = new JsonObject();
    at++;
    space();
    if (text[at] === "}") {
      at++;
      return found;
    }
    for (;;) {
      space();
      if (text[at] !== '"') fail("a name in double quotes");
      const name = string();
      space();
      if (text[at] !== ":") fail("a colon");
      at++;
      if (take !== undefined && left === depth - 1) {
        values = 0;
        take(name, value(left));
      } else found.entries.push([name, value(left)]);
      space();
      if (text[at] === "}") {
        at++;
        return found;
      }
      if (text[at] !== ",") fail("a comma or }");
      at++;
    }
  };

  const list = (left: number): Json[] => {
    const found: Json[] = [];
    at++;
    space();
    if (text[at] === "]") {
      at++;
      return found;
    }
    for (;;) {
      found.push(value(left));
      space();
      if (text[at] === "]") {
        at++;
        return found;
      }
      if (text[at] !== ",") fail("a comma or ]");
      at++;
    }
  };

  const result = value(depth);
  space();
  if (at < text.length) fail("the end");
  return result;
}
