// Errors on their way out of the worker: class instances do not cross, so their parts do.

import { LongtailError } from "../../base/errors.ts";
import type { WireError } from "../protocol.ts";

/** What crosses from worker to page in the place of an error. */
export function wireError(error: unknown): WireError {
  if (error instanceof LongtailError) return { code: error.code, ...withoutCause(error) };
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    code: "E-RUN-099",
    what: "a fault of the program",
    why: text,
    fix: "please report it with the diagnostics that this page can copy",
  };
}

function withoutCause({ parts }: LongtailError) {
  const { what, where, why, fix } = parts;
  return { what, ...(where ? { where } : {}), ...(why ? { why } : {}), ...(fix ? { fix } : {}) };
}
