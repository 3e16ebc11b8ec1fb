// Two pictures on one place, divided by a line that is moved with the pointer or the arrow keys: to its left before, to its
// right after. The line is a range input over the picture, so every way of moving a slider works here too.

import { Drawn } from "../components/pictures.tsx";
import type { Pixels } from "../protocol.ts";

interface BeforeAfterProps {
  before: Pixels;
  after: Pixels | null;
  /** "after training", or after how much of it. */
  when: string;
  prompt: string;
  /** 0 shows after alone, 100 before alone. */
  split: number;
  onSplit: (split: number) => void;
  number: number;
}

export function BeforeAfter({ before, after, when, prompt, split, onSplit, number }: BeforeAfterProps) {
  return (
    <div class="pair" style={{ "--split": `${split}%` }}>
      <Drawn picture={before} label={`${prompt}, before training`} />
      {after && <Drawn picture={after} label={`${prompt}, ${when}`} class="pair-after" />}
      {after && (
        <>
          <span class="pair-tag" aria-hidden="true" hidden={split < 12}>
            before
          </span>
          <span class="pair-tag pair-tag-after" aria-hidden="true" hidden={split > 88}>
            after
          </span>
          <span class="pair-line" aria-hidden="true" />
          <input
            type="range"
            class="pair-range"
            min={0}
            max={100}
            value={split}
            aria-label={`Before and after, picture ${number}`}
            aria-valuetext={`${split} % before, ${100 - split} % after`}
            onInput={({ currentTarget }) => onSplit(currentTarget.valueAsNumber)}
          />
        </>
      )}
    </div>
  );
}
