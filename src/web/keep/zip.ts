// A zip made in the page, file by file: what is in it is streamed from the storage through fflate into one blob, so that a
// run of many megabytes never lies in memory twice. Pictures and weights are stored as they are, texts are deflated.

export interface ZipFile {
  name: string;
  blob: Blob;
  /** When it was written; the time of the zip by default. */
  time?: Date;
}

/** Bytes of finished chunks that are kept before they become a blob, which the browser may move to the disk. */
const PIECE = 4 * 1024 * 1024;
const DENSE = /\.(png|jpe?g|webp|avif|zip|gz|safetensors)$/i;

/** @throws where a file cannot be read */
export async function zipOf(files: AsyncIterable<ZipFile> | Iterable<ZipFile>): Promise<Blob> {
  const { Zip, ZipDeflate, ZipPassThrough } = await import("fflate");
  let pieces: Blob[] = [];
  let chunks: Uint8Array<ArrayBuffer>[] = [];
  let held = 0;
  let problem: Error | null = null;
  const settle = () => {
    pieces.push(new Blob(chunks));
    chunks = [];
    held = 0;
  };
  const zip = new Zip((error, chunk) => {
    problem ??= error;
    if (!chunk) return;
    chunks.push(chunk as Uint8Array<ArrayBuffer>);
    held += chunk.length;
    if (held >= PIECE) settle();
  });
  for await (const { name, blob, time } of files) {
    const entry = DENSE.test(name) ? new ZipPassThrough(name) : new ZipDeflate(name, { level: 6 });
    if (time) entry.mtime = time;
    zip.add(entry);
    const reader = blob.stream().getReader();
    for (;;) {
      const { done, value } = await reader.read();
      entry.push(value ?? new Uint8Array(0), done);
      if (done) break;
    }
    if (problem) throw problem;
  }
  zip.end();
  settle();
  const whole = new Blob(pieces, { type: "application/zip" });
  pieces = [];
  return whole;
}

/** Gives a blob to the user as a file. */
export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // Safari reads the blob after the click returns.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
