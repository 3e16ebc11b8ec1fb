// One picture of the own set: its thumbnail with the square that is trained on, its caption to be edited, and a way to take it
// out. Thumbnails are drawn one after the other into small canvases, so that thirty photographs are never held decoded at once.

import { useEffect, useRef, useState } from "preact/hooks";
import type { SetPicture } from "../protocol.ts";
import { cutAway, squareCrop } from "./crop.ts";
import { removePicture, storedPicture, writeCaption } from "./own_set.ts";
import { unknownWords, vocabulary } from "./vocabulary.ts";

/** Longest side of a thumbnail, in pixels of the canvas. */
const LONGEST = 320;
/** From this size on a picture is small art, whose pixels stay pixels. */
const SMALL_ART = 96;

let queue: Promise<unknown> = Promise.resolve();

async function draw(canvas: HTMLCanvasElement, path: string, isGone: () => boolean): Promise<boolean> {
  const blob = isGone() ? null : await storedPicture(path);
  if (blob === null || isGone()) return false;
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (context) {
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  }
  bitmap.close();
  return true;
}

/** A canvas that gets the stored picture when its turn comes. */
function useThumbnail(path: string) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [missing, setMissing] = useState(false);
  useEffect(() => {
    let gone = false;
    queue = queue
      .then(() => (canvas.current ? draw(canvas.current, path, () => gone) : false))
      .then((drawn) => !gone && setMissing(!drawn))
      .catch(() => !gone && setMissing(true));
    return () => {
      gone = true;
    };
  }, [path]);
  return { canvas, missing };
}

/** The picture alone, for the tile of the own set. */
export function Miniature({ path }: { path: string }) {
  const { canvas } = useThumbnail(path);
  return <canvas ref={canvas} />;
}

export function Thumbnail({ picture, index }: { picture: SetPicture; index: number }) {
  const { path, width, height, caption } = picture;
  const { canvas, missing } = useThumbnail(path);
  const crop = squareCrop(width, height);
  const share = (value: number) => `${100 * value}%`;
  const cut = Math.round(100 * cutAway(width, height));
  const name = path.split("/").at(-1)!;
  const isArt = Math.max(width, height) <= SMALL_ART;
  return (
    <li class="own-picture">
      <div class="own-frame">
        <div
          class="own-fit"
          style={{ aspectRatio: `${width} / ${height}`, width: width >= height ? "100%" : share(width / height) }}
        >
          <canvas
            ref={canvas}
            class={isArt ? "pixels" : ""}
            role="img"
            aria-label={caption === "" ? `Picture ${index + 1}, ${name}, without a caption` : caption}
          />
          {cut > 0 && (
            <span
              class="own-crop"
              aria-hidden="true"
              style={{
                left: share(crop.left),
                top: share(crop.top),
                width: share(crop.width),
                height: share(crop.height),
              }}
            />
          )}
        </div>
        <button
          type="button"
          class="own-remove"
          aria-label={`Remove ${name}`}
          title="Remove from the set"
          onClick={() => void removePicture(path)}
        >
          <svg aria-hidden="true" viewBox="0 0 16 16" width="12" height="12">
            <path d="M3 3l10 10M13 3L3 13" stroke="currentColor" stroke-width="2" stroke-linecap="round" />
          </svg>
        </button>
      </div>
      <Caption path={path} caption={caption} name={name} />
      <p class="own-facts">
        {missing ? "cannot be shown here" : `${width}×${height}${cut > 0 ? `, ${cut}% cut off` : ""}`}
      </p>
    </li>
  );
}

function Caption({ path, caption, name }: { path: string; caption: string; name: string }) {
  const known = vocabulary.value;
  const unread = known ? unknownWords(caption, known.words) : [];
  const id = `caption-${path}`;
  return (
    <>
      <label class="visually-hidden" for={id}>
        Caption of {name}
      </label>
      <textarea
        id={id}
        class={caption === "" ? "input own-caption own-caption-empty" : "input own-caption"}
        rows={2}
        maxLength={2000}
        placeholder="What does it show?"
        value={caption}
        aria-describedby={unread.length > 0 ? `${id}-unread` : undefined}
        onChange={({ currentTarget }) => void writeCaption(path, currentTarget.value.replace(/\s+/g, " ").trim())}
      />
      {unread.length > 0 && (
        <p class="own-unread" id={`${id}-unread`}>
          not read: {unread.join(", ")}
        </p>
      )}
    </>
  );
}
