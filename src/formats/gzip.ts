// gzip through the platform's own decompressor, which every runtime and browser has.

import { LongtailError } from "../base/errors.ts";

/** @throws E-FILE-019 the bytes are not a whole gzip file */
export async function gunzip(bytes: Uint8Array, where: string): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new LongtailError("E-FILE-019", {
      what: "is not a whole gzip file",
      where,
      why: (error as Error).message,
      fix: "fetch or restore the file again",
      cause: error,
    });
  }
}
