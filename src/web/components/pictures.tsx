// Pictures of a run: one file as an image, and the strip in which every row is one sampling of the same prompts and noise.

import { useEffect, useState } from "preact/hooks";
import type { RunSource } from "../run_source.ts";
import type { SampleView } from "../run_view.ts";

interface RunPictureProps {
  source: RunSource;
  path: string;
  alt: string;
  class?: string;
}

/** A picture file of a run folder; a blank square until it is read. */
export function RunPicture({ source, path, alt, class: extra = "pixels" }: RunPictureProps) {
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    let made: string | null = null;
    let gone = false;
    void source.blob(path).then((blob) => {
      if (gone || !blob) return;
      made = URL.createObjectURL(blob);
      setUrl(made);
    });
    return () => {
      gone = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [source, path]);
  return url ? <img class={extra} src={url} alt={alt} width={64} height={64} /> : null;
}

interface PictureStripProps {
  source: RunSource;
  /** Samples by update, as in a RunView. */
  samples: ReadonlyMap<number, readonly SampleView[]>;
  /** What a row is called; the update where it is left out. */
  labelOf?: (step: number) => string;
  /** A picture was chosen, by its place in its row. */
  onChoose?: (index: number, step: number) => void;
}

/** Rows by update, step 0 first. */
export function PictureStrip({ source, samples, labelOf = String, onChoose }: PictureStripProps) {
  const rows = [...samples].sort(([a], [b]) => a - b);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable with the keyboard
    <section class="strip" aria-label="Samples by update" tabIndex={0}>
      {rows.map(([step, pictures]) => (
        <div class="strip-row" key={step}>
          <span class="strip-label">{labelOf(step)}</span>
          <div class="strip-pictures">
            {pictures.map(({ path, item }, index) => (
              <button
                key={path}
                type="button"
                class="strip-picture"
                aria-label={`${item || `picture ${index + 1}`}, update ${step}`}
                title={item}
                onClick={() => onChoose?.(index, step)}
              >
                <RunPicture source={source} path={path} alt="" />
              </button>
            ))}
          </div>
        </div>
      ))}
    </section>
  );
}
