// Pictures of a run as object URLs, each read once and kept while the run is shown, so that scrubbing back and forth does not
// flicker. The oldest are given back when there are too many.

import type { RunSource } from "../run_source.ts";

/** 64-pixel pictures of some kilobytes; enough for scrubbing, little for memory. */
const MOST = 600;

export class KeptPictures {
  private readonly source: Pick<RunSource, "blob">;
  private readonly urls = new Map<string, string>();
  private readonly coming = new Map<string, Promise<string | null>>();
  private closed = false;

  constructor(source: Pick<RunSource, "blob">) {
    this.source = source;
  }

  /** The URL where the picture was read already. */
  known(path: string): string | null {
    return this.urls.get(path) ?? null;
  }

  /** The URL of a picture; null where there is none (yet: it is asked for again the next time). */
  url(path: string): Promise<string | null> {
    const known = this.known(path);
    if (known) return Promise.resolve(known);
    const coming = this.coming.get(path) ?? this.read(path);
    this.coming.set(path, coming);
    return coming;
  }

  close(): void {
    this.closed = true;
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls.clear();
  }

  private async read(path: string): Promise<string | null> {
    const blob = await this.source.blob(path);
    this.coming.delete(path);
    if (!blob || this.closed) return null;
    const url = URL.createObjectURL(blob);
    this.urls.set(path, url);
    const oldest = this.urls.size > MOST ? this.urls.keys().next().value : undefined;
    if (oldest !== undefined) {
      URL.revokeObjectURL(this.urls.get(oldest)!);
      this.urls.delete(oldest);
    }
    return url;
  }
}
