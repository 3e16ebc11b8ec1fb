// Names of files inside archives and lists from strangers. A name may only lead downwards from where the list lies.

/**
 * The name with `/` between folders and without `.` parts, or null where it is empty, absolute, climbs out with `..`, or
 * holds control characters.
 */
export function safeName(name: unknown): string | null {
  if (typeof name !== "string" || name.length > 4096 || /[\u0000-\u001f\u007f]/.test(name)) return null;
  const parts = name.replaceAll("\\", "/").split("/");
  if (parts[0] === "" || /^[a-z]:/i.test(name) || parts.includes("..")) return null;
  const kept = parts.filter((part) => part !== "" && part !== ".");
  return kept.length === 0 ? null : kept.join("/");
}
