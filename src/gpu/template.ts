// Turns a WGSL file with named placeholders into the text of one variant: element types, tile sizes, flags and unrolled
// blocks are known before compilation, shapes are not (they travel as data). The language is four constructs, so that a
// kernel file still reads as WGSL:
//
//   {{NAME}}                        the value of a constant, or of an enclosing //#for variable
//   //#if NAME … //#else … //#endif    lines kept where NAME is true (`//#if !NAME` where it is false); nestable
//   //#for name COUNT … //#endfor      lines repeated with {{name}} = 0 … COUNT-1; COUNT: a number or a constant

/** Values that a template may use. Using a name that is missing here is an error, in `//#if` as well. */
export type TemplateConstants = Readonly<Record<string, string | number | boolean>>;

interface Branch {
  line: number;
  taken: boolean;
  seenElse: boolean;
}

/**
 * Expands `source` with `constants`. Values are inserted as they are and not expanded again, so an epilogue's text must
 * arrive finished. Throws an Error that names the line and the unknown placeholder, or the unbalanced directive.
 */
export function expandTemplate(source: string, constants: TemplateConstants): string {
  const out: string[] = [];
  expandLines(source.split("\n"), 0, new Map(Object.entries(constants)), out);
  return out.join("\n");
}

function expandLines(
  lines: readonly string[],
  firstLine: number,
  scope: Map<string, string | number | boolean>,
  out: string[],
): void {
  const branches: Branch[] = [];
  for (let i = 0; i < lines.length; i++) {
    const text = lines[i]!;
    const line = firstLine + i + 1;
    const directive = /^\s*\/\/#(\w+)\s*(.*?)\s*$/.exec(text);
    const active = branches.every((branch) => branch.taken);
    if (!directive) {
      if (active) out.push(fill(text, scope, line));
      continue;
    }
    const [, word, rest] = directive as unknown as [string, string, string];
    if (word === "if") {
      branches.push({ line, taken: active && isTrue(rest, scope, line), seenElse: false });
    } else if (word === "else") {
      const branch = branches.at(-1);
      if (!branch || branch.seenElse) throw new Error(`template line ${line}: //#else without //#if`);
      branch.seenElse = true;
      branch.taken = !branch.taken;
    } else if (word === "endif") {
      if (!branches.pop()) throw new Error(`template line ${line}: //#endif without //#if`);
    } else if (word === "for") {
      const end = endOfLoop(lines, i, line);
      if (active) repeat(lines.slice(i + 1, end), line, rest, scope, out);
      i = end;
    } else {
      throw new Error(`template line ${line}: unknown directive //#${word}`);
    }
  }
  const open = branches.at(-1);
  if (open) throw new Error(`template line ${open.line}: //#if without //#endif`);
}

function repeat(
  body: readonly string[],
  line: number,
  header: string,
  scope: Map<string, string | number | boolean>,
  out: string[],
): void {
  const match = /^(\w+)\s+(\w+)$/.exec(header);
  if (!match) throw new Error(`template line ${line}: //#for wants a name and a count, got "${header}"`);
  const [, name, count] = match as unknown as [string, string, string];
  const times = /^\d+$/.test(count) ? Number(count) : Number(lookUp(count, scope, line));
  if (!Number.isInteger(times) || times < 0)
    throw new Error(`template line ${line}: //#for count ${count} is ${times}`);
  for (let value = 0; value < times; value++) expandLines(body, line, new Map(scope).set(name, value), out);
}

function endOfLoop(lines: readonly string[], start: number, line: number): number {
  let depth = 0;
  for (let i = start; i < lines.length; i++) {
    if (/^\s*\/\/#for\b/.test(lines[i]!)) depth++;
    else if (/^\s*\/\/#endfor\b/.test(lines[i]!) && --depth === 0) return i;
  }
  throw new Error(`template line ${line}: //#for without //#endfor`);
}

function isTrue(condition: string, scope: Map<string, string | number | boolean>, line: number): boolean {
  const match = /^(!?)(\w+)$/.exec(condition);
  if (!match) throw new Error(`template line ${line}: //#if wants one name, got "${condition}"`);
  const value = Boolean(lookUp(match[2]!, scope, line));
  return match[1] ? !value : value;
}

function fill(text: string, scope: Map<string, string | number | boolean>, line: number): string {
  return text.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name: string) => String(lookUp(name, scope, line)));
}

function lookUp(name: string, scope: Map<string, string | number | boolean>, line: number): string | number | boolean {
  const value = scope.get(name);
  if (value === undefined) throw new Error(`template line ${line}: unknown placeholder ${name}`);
  return value;
}
