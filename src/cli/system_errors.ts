// Turns the file system's error codes into coded errors for the few files that are written synchronously (the log must
// not wait); the codes are those of the asynchronous file store: a full disk is the environment's fault, the rest a file's.

import { LongtailError } from "../base/errors.ts";

/** The coded form of a failed write to `path`; errors that are no file errors come back as they are. */
export function fileError(error: unknown, path: string): unknown {
  const code = (error as { code?: unknown } | null)?.code;
  if (error instanceof LongtailError || typeof code !== "string") return error;
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") {
    return new LongtailError("E-ENV-020", {
      what: "the disk is full",
      where: path,
      why: code === "ENOSPC" ? "no space is left on the device" : "the quota is used up",
      fix: "free some space, or choose another folder with run.folder; what was there before is unchanged",
      cause: error,
    });
  }
  if (code === "ENOENT") {
    return new LongtailError("E-FILE-001", {
      what: "there is no such file or folder",
      where: path,
      fix: "check the path; relative paths start at the folder in which the command runs",
      cause: error,
    });
  }
  return new LongtailError("E-FILE-004", {
    what: "the file cannot be written",
    where: path,
    why: (error as Error).message,
    fix: "check the path and its permissions",
    cause: error,
  });
}
