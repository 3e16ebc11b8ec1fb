// The coded errors of torch.save files.

import { LongtailError } from "../base/errors.ts";
import { PickleError, type PickleFault } from "./pickle_values.ts";

/** What helps against every file that this reader refuses and torch would load. */
export const CONVERT =
  "if you trust the file, convert it with torch on another machine (torch.load, then safetensors.torch.save_file) and give the .safetensors file";
export const FETCH = "fetch the file again from where it came from and compare its size";

const ANSWERS: Readonly<Record<PickleFault, readonly [code: string, what: string, fix: string]>> = {
  global: ["E-FILE-102", "the file wants to run code or to make objects other than tensors", CONVERT],
  opcode: ["E-FILE-103", "the pickle holds an instruction that data does not need", CONVERT],
  limit: ["E-FILE-104", "the structure of the file goes beyond what any checkpoint needs", CONVERT],
  end: ["E-FILE-103", "the pickle is cut off", FETCH],
  damaged: ["E-FILE-103", "the pickle is damaged", FETCH],
  tensor: ["E-FILE-105", "the description of a tensor is not valid", FETCH],
  storage: ["E-FILE-106", "the data of a tensor is not there as described", FETCH],
};

/** A refusal of the whole file or of its layout. */
export function refusal(code: string, where: string, what: string, why: string, fix = FETCH, cause?: unknown) {
  return new LongtailError(code, { what, where, why, fix, cause });
}

/** The coded form of what a pickle, a tree or a view was refused for; other errors pass. */
export function coded(error: unknown, where: string): unknown {
  if (!(error instanceof PickleError)) return error;
  const [code, what, fix] = ANSWERS[error.fault];
  return refusal(code, where, what, error.message, fix, error);
}

/** Faults of the zip archive, whose advice is for archives of pictures, with the advice for a checkpoint. */
export async function asCheckpoint<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof LongtailError && error.code.startsWith("E-FILE-08"))) throw error;
    throw new LongtailError(error.code, { ...error.parts, fix: FETCH, cause: error });
  }
}
