// JSON that gives back every number it was given. JSON.stringify turns -0 into 0 and NaN into null without a word; a run
// that goes on from such a state would differ from the one that was stopped.

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/**
 * The text of a value; JSON.parse gives the same value back, doubles bit for bit.
 * @param indent spaces a level, 0 for one line
 * @throws TypeError where a value has no exact form in JSON, naming its place
 */
export function exactJson(value: JsonValue, indent = 0): string {
  const write = (item: unknown, place: string, margin: string): string => {
    if (item === null || typeof item === "boolean" || typeof item === "string") return JSON.stringify(item);
    if (typeof item === "number") {
      if (!Number.isFinite(item)) throw new TypeError(`${place} is ${item}, which JSON cannot hold`);
      return Object.is(item, -0) ? "-0" : String(item);
    }
    const inner = margin + " ".repeat(indent);
    const list = (parts: string[], open: string, close: string) => {
      if (parts.length === 0) return open + close;
      return indent > 0
        ? `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}`
        : open + parts.join(",") + close;
    };
    if (Array.isArray(item))
      return list(
        item.map((part, i) => write(part, `${place}[${i}]`, inner)),
        "[",
        "]",
      );
    if (
      typeof item === "object" &&
      (Object.getPrototypeOf(item) === Object.prototype || Object.getPrototypeOf(item) === null)
    ) {
      const colon = indent > 0 ? ": " : ":";
      const entries = Object.entries(item as object).map(
        ([key, part]) => JSON.stringify(key) + colon + write(part, place ? `${place}.${key}` : key, inner),
      );
      return list(entries, "{", "}");
    }
    throw new TypeError(`${place || "the value"} is no JSON: ${Object.prototype.toString.call(item)}`);
  };
  return write(value, "", "");
}
