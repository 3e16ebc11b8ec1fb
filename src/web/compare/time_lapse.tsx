// The run's samples as time goes on: one slider over its samplings, the same prompts and noise in each, so that what changes
// is what was learnt.

import { useEffect, useState } from "preact/hooks";
import { Button } from "../components/basic.tsx";
import { RunPicture } from "../components/pictures.tsx";
import type { ChosenRun } from "./chosen_run.ts";

/** Milliseconds that a sampling is shown while it plays. */
const FRAME = 700;

export function TimeLapse({ run }: { run: ChosenRun }) {
  const rows = [...run.view.samples].sort(([a], [b]) => a - b);
  const last = rows.length - 1;
  const [at, setAt] = useState<number | null>(null);
  const [playing, setPlaying] = useState(false);
  const place = at === null || at > last ? last : at;
  useEffect(() => setAt(null), [run.name]);
  useEffect(() => {
    if (!playing) return;
    const timer = setInterval(() => {
      setAt((now) => {
        const next = Math.min(last, (now ?? -1) + 1);
        if (next === last) setPlaying(false);
        return next;
      });
    }, FRAME);
    return () => clearInterval(timer);
  }, [playing, last]);
  if (rows.length < 2) return null;
  const [step] = rows[place]!;
  const prompts = rows[last]![1].length;
  const text = `update ${step}`;
  return (
    <section class="lapse" aria-labelledby="lapse-title">
      <div class="row spread">
        <h3 id="lapse-title">As training went on</h3>
        <span class="small quiet">{text}</span>
      </div>
      <ul class="lapse-pictures">
        {Array.from({ length: prompts }, (_, n) => (
          <li key={`${run.name}/${n}`}>
            {rows.map(([update, pictures], row) =>
              pictures[n] ? (
                <RunPicture
                  key={pictures[n].path}
                  source={run.source}
                  path={pictures[n].path}
                  alt={row === place ? `${pictures[n].item}, update ${update}` : ""}
                  class={row === place ? "pixels" : "pixels lapse-other"}
                />
              ) : null,
            )}
          </li>
        ))}
      </ul>
      <div class="lapse-controls">
        <Button
          small
          onClick={() => {
            if (!playing && place === last) setAt(0);
            setPlaying(!playing);
          }}
        >
          {playing ? "Stop" : "Play"}
        </Button>
        <input
          type="range"
          class="slider"
          min={0}
          max={last}
          value={place}
          aria-label="Sampling"
          aria-valuetext={text}
          onInput={({ currentTarget }) => {
            setPlaying(false);
            setAt(currentTarget.valueAsNumber);
          }}
        />
      </div>
    </section>
  );
}
