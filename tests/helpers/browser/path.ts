// `node:path` for tests that run in a page: paths with slashes, from the project's folder as root.

/** Joins and resolves `.` and `..`. */
export function join(...parts: string[]): string {
  const out: string[] = [];
  for (const part of parts.join("/").split("/")) {
    if (part === "..") out.pop();
    else if (part && part !== ".") out.push(part);
  }
  return `/${out.join("/")}`;
}

/** The folder that `path` lies in. */
export const dirname = (path: string): string => join(path, "..");
