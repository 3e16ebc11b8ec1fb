// Pictures of a run: one file as an image, and the strip in which every row is one sampling of the same prompts and noise.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Pixels, PreviewPicture } from "../protocol.ts";
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

/** A drawn picture in a canvas of its own size. */
export function Drawn({ picture, label, class: extra = "" }: { picture: Pixels; label: string; class?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const { width, height, rgba } = picture;
    canvas.current?.getContext("2d")?.putImageData(new ImageData(rgba, width, height), 0, 0);
  }, [picture]);
  return (
    <canvas
      ref={canvas}
      class={`pixels ${extra}`}
      width={picture.width}
      height={picture.height}
      role="img"
      aria-label={label}
    />
  );
}

/** Samples of an update that take shape. */
export interface FormingSamples {
  step: number;
  pictures: readonly PreviewPicture[];
}

interface PictureStripProps {
  source: RunSource;
  /** Samples by update, as in a RunView. */
  samples: ReadonlyMap<number, readonly SampleView[]>;
  /** Shown in the place that the samples of its update will have. */
  forming?: FormingSamples | null;
  /** A picture was chosen, by the place of its prompt and its update. */
  onChoose?: (index: number, step: number) => void;
}

/** Up to so many prompts their pictures are shown larger. */
const FEW_PROMPTS = 4;

/** One row a prompt, one column a sampling, step 0 first: along a row only the model changes. */
export function PictureStrip({ source, samples, forming, onChoose }: PictureStripProps) {
  const steps = [...samples.keys()].sort((a, b) => a - b);
  const coming = forming?.pictures ?? [];
  const prompts = Math.max(0, ...[...samples.values()].map((row) => row.length), ...coming.map((p) => p.index + 1));
  const comingAt = (index: number) => coming.find((picture) => picture.index === index);
  const itemOf = (index: number) =>
    steps.map((step) => samples.get(step)![index]?.item).find(Boolean) ?? comingAt(index)?.item ?? "";
  const rows = Array.from({ length: prompts }, (_, index) => ({ index, item: itemOf(index) }));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable with the keyboard
    <section class={`strip ${prompts <= FEW_PROMPTS ? "strip-few" : ""}`} aria-label="Samples by update" tabIndex={0}>
      <div class="strip-row" aria-hidden="true">
        <span class="strip-label" />
        {steps.map((step) => (
          <span class="strip-step" key={step}>
            {step === 0 ? "before" : step}
          </span>
        ))}
        {forming && <span class="strip-step">{forming.step === 0 ? "before" : forming.step} …</span>}
      </div>
      {rows.map(({ index, item }) => (
        <div class="strip-row" key={index}>
          <span class="strip-label" title={item}>
            {item}
          </span>
          {steps.map((step) => {
            const sample = samples.get(step)![index];
            return (
              <button
                key={step}
                type="button"
                class="strip-picture"
                disabled={!sample}
                aria-label={`${item || `picture ${index + 1}`}, update ${step}`}
                onClick={() => onChoose?.(index, step)}
              >
                {sample && <RunPicture source={source} path={sample.path} alt="" class="" />}
              </button>
            );
          })}
          {forming && (
            <span class="strip-picture strip-forming">
              {comingAt(index) && (
                <Drawn picture={comingAt(index)!} class="" label={`${item || `picture ${index + 1}`}, taking shape`} />
              )}
            </span>
          )}
        </div>
      ))}
    </section>
  );
}
