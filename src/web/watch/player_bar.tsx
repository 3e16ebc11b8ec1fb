// The controls of a recorded run, and the sentence that says that it is one: what ran where and when.

import { Button, Icon } from "../components/basic.tsx";
import { clockText } from "./overlay_plot.ts";
import type { PlayedRun } from "./played_run.ts";
import { SPEEDS } from "./player.ts";

const PLAY = "M8 5l11 7-11 7z";
const PAUSE = "M8 5v14M16 5v14";

export function PlayerBar({ run }: { run: PlayedRun }) {
  run.version.value;
  const { player, recording } = run;
  const day = new Date(recording.started).toLocaleDateString("en-GB", {
    day: "numeric",
    month: "long",
    year: "numeric",
  });
  const at = `${clockText(player.position)} of ${clockText(player.duration)}`;
  return (
    <div class="player">
      <p class="small">
        <strong>This is a recording</strong> of a real run of {day} on {recording.device}
        {recording.software ? ", a software adapter that computes on the processor" : ""}. Nothing is computed now.
      </p>
      <div class="player-controls">
        <Button
          kind="primary"
          small
          class="button-icon"
          label={player.playing ? "Pause" : "Play"}
          onClick={() => (player.playing ? run.pause() : run.play())}
        >
          <Icon path={player.playing ? PAUSE : PLAY} />
        </Button>
        <div class="player-scrub">
          <input
            type="range"
            class="slider"
            aria-label="Position in the recording"
            aria-valuetext={at}
            min={0}
            max={Math.max(1, player.duration)}
            step={0.5}
            value={player.position}
            onInput={(event) => run.seek(event.currentTarget.valueAsNumber)}
          />
          <div class="player-marks" aria-hidden="true">
            {player.sampleMarks().map(({ step, position }) => (
              <span
                key={step}
                title={`samples at update ${step}`}
                style={{ left: `${(100 * position) / player.duration}%` }}
              />
            ))}
          </div>
        </div>
        <span class="small quiet player-time">{at}</span>
        <fieldset class="player-speeds" aria-label="Speed">
          {SPEEDS.map((speed) => (
            <Button key={speed} small pressed={player.speed === speed} onClick={() => run.setSpeed(speed)}>
              ×{speed}
            </Button>
          ))}
        </fieldset>
      </div>
    </div>
  );
}
