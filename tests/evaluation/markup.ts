// What the tests of pages look at: problems of nesting and naming, and the text that a reader sees.

const VOID = new Set(["meta", "img", "br", "hr", "link", "input"]);

/** Every problem of nesting; an empty list for sound markup. Style text and comments have no tags of their own. */
export function markupProblems(html: string): string[] {
  const problems: string[] = [];
  const open: string[] = [];
  const ids = new Set<string>();
  const body = html.replace(/<style>[\s\S]*?<\/style>/, "");
  for (const [tag, slash, name, rest] of body.matchAll(/<(\/?)([a-zA-Z][\w-]*)((?:"[^"]*"|[^>"])*)>/g)) {
    const id = rest!.match(/\sid="([^"]*)"/)?.[1];
    if (id !== undefined) {
      if (ids.has(id)) problems.push(`id ${id} twice`);
      ids.add(id);
    }
    if (rest!.endsWith("/") || VOID.has(name!.toLowerCase())) continue;
    if (!slash) open.push(name!);
    else if (open.pop() !== name) problems.push(`${tag} closes another element`);
  }
  for (const name of open) problems.push(`<${name}> is not closed`);
  for (const [, target] of body.matchAll(/href="#([^"]*)"/g))
    if (!ids.has(target!)) problems.push(`#${target} leads nowhere`);
  for (const [label] of body.matchAll(/aria-labelledby="[^"]*"/g)) {
    if (!ids.has(label.slice(17, -1))) problems.push(`${label} names nothing`);
  }
  return problems;
}

/** What a reader sees: tags and style removed. */
export function textOf(html: string): string {
  return html
    .replace(/<style>[\s\S]*?<\/style>/, "")
    .replace(/src="data:[^"]*"/g, "")
    .replace(/<[^>]*>/g, " ");
}
