// Pictures from the camera. It is asked for by a click, shown with the square that is kept, and switched off when the panel is
// closed, the tab is hidden or the page is left.

import { useEffect, useRef, useState } from "preact/hooks";
import { addFiles, ownSet } from "./own_set.ts";

/** Side of a photograph: more than the small model learns from, enough for a larger one later. */
const SIDE = 512;

const REASONS: Record<string, string> = {
  NotAllowedError: "The browser did not allow it. Allow the camera for this page in the address bar, then try again.",
  NotFoundError: "There is no camera.",
  NotReadableError: "Another program is using the camera. Close it, then try again.",
};

export function Camera({ close }: { close: () => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [ready, setReady] = useState(false);
  const [taken, setTaken] = useState(0);

  useEffect(() => {
    let stream: MediaStream | null = null;
    let gone = false;
    const stop = () => {
      gone = true;
      for (const track of stream?.getTracks() ?? []) track.stop();
    };
    const leave = () => {
      if (document.visibilityState === "hidden") close();
    };
    document.addEventListener("visibilitychange", leave);
    const ask = async () => {
      const wanted = { width: { ideal: 1280 }, height: { ideal: 720 } };
      if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no camera", "NotFoundError");
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      if (gone) return stop();
      video.current!.srcObject = stream;
      await video.current!.play();
      setReady(true);
    };
    ask().catch((error: Error) => {
      if (!gone) setProblem(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
    });
    return () => {
      document.removeEventListener("visibilitychange", leave);
      stop();
    };
  }, []);

  const shoot = async () => {
    const { videoWidth, videoHeight } = video.current!;
    const side = Math.min(videoWidth, videoHeight);
    if (side === 0) return;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const [left, top] = [(videoWidth - side) / 2, (videoHeight - side) / 2];
    canvas.getContext("2d")!.drawImage(video.current!, left, top, side, side, 0, 0, SIDE, SIDE);
    const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
    if (!blob) return;
    const number = (ownSet.value?.pictures.length ?? 0) + 1;
    setTaken(taken + 1);
    await addFiles([{ name: `camera ${number}.png`, blob }]);
  };

  return (
    <div class="camera">
      {problem ? (
        <p role="alert" class="notice notice-warn">
          {problem}
        </p>
      ) : (
        <div class="camera-view">
          <video ref={video} playsInline muted aria-label="What the camera sees; the square in the middle is kept" />
        </div>
      )}
      <div class="row">
        <button type="button" class="button button-primary" disabled={!ready} onClick={() => void shoot()}>
          Take picture
        </button>
        <button type="button" class="button" onClick={close}>
          Switch camera off
        </button>
        <span class="field-hint" aria-live="polite">
          {taken > 0 ? `${taken} taken` : ""}
        </span>
      </div>
    </div>
  );
}
