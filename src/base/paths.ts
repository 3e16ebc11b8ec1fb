// Paths for rooms that know no platform: joined with "/", which every system and every browser storage takes, and read with
// either separator. The few calls of node:path that runs need, with the same results on plain paths.

const SEPARATOR = /[/\\]/;

/** The parts joined by "/", with `.` and `..` taken out; empty parts do not count. */
export function join(...parts: string[]): string {
  const text = parts.filter((part) => part !== "").join("/");
  if (text === "") return ".";
  const rooted = text.startsWith("/");
  const kept: string[] = [];
  for (const part of text.split(/\/+/)) {
    if (part === "" || part === ".") continue;
    if (part !== "..") kept.push(part);
    else if (kept.length > 0 && kept.at(-1) !== "..") kept.pop();
    else if (!rooted) kept.push(part);
  }
  return (rooted ? "/" : "") + kept.join("/") || ".";
}

/** What follows the last separator; separators at the end do not count. */
export function basename(path: string): string {
  return path
    .replace(/[/\\]+$/, "")
    .split(SEPARATOR)
    .at(-1)!;
}

/** What comes before the last separator: "." where there is none, "/" for what lies in the root. */
export function dirname(path: string): string {
  const plain = path.replace(/(?<=.)[/\\]+$/, "");
  const at = Math.max(plain.lastIndexOf("/"), plain.lastIndexOf("\\"));
  if (at < 0) return ".";
  return at === 0 ? plain.slice(0, 1) : plain.slice(0, at).replace(/(?<=.)[/\\]+$/, "");
}
