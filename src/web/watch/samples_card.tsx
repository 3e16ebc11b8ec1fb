// The samples of the shown runs at one update, twice as large, beside those of the first update; a scrubber goes through the
// updates. Pictures are fetched when they are seen, and kept while the run is shown.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { counted } from "../../evaluation/format.ts";
import { Button, Card, Check, Slider } from "../components/basic.tsx";
import type { SampleView } from "../run_view.ts";
import { Swatch } from "./compare_card.tsx";
import { KeptPictures } from "./kept_pictures.ts";
import { lastAtMost } from "./overlay.ts";
import type { ShownRun } from "./shown_runs.ts";

/** Items that are drawn before somebody asks for all. */
const FEW = 12;

export function SamplesCard({ runs }: { runs: readonly ShownRun[] }) {
  for (const { run } of runs) run.version.value;
  const chosen = useSignal<number | null>(null);
  const beside = useSignal(true);
  const steps = [...new Set(runs.flatMap(({ run }) => [...run.view.samples.keys()]))].sort((a, b) => a - b);
  if (steps.length === 0) return null;
  // Without a choice the newest samples are shown, as they come.
  const at = chosen.value === null ? steps.length - 1 : Math.max(0, lastAtMost(steps, chosen.value));
  const step = steps[at]!;
  return (
    <Card title="Samples" aside={`update ${step}`}>
      <p class="small quiet">The same texts and the same noise at every update: what changes is the model.</p>
      <div class="sample-controls">
        {steps.length > 1 && (
          <Slider
            label="Update"
            text={`${step}, sampling ${at + 1} of ${steps.length}`}
            min={0}
            max={steps.length - 1}
            value={at}
            onValue={(value) => {
              chosen.value = value === steps.length - 1 ? null : steps[value]!;
            }}
          />
        )}
        <Check
          label="The first sampling beside it"
          checked={beside.value}
          onChange={(on) => {
            beside.value = on;
          }}
        />
      </div>
      {runs.map((one) => (
        <RunSamples key={one.id} shownRun={one} step={step} beside={beside.value} named={runs.length > 1} />
      ))}
    </Card>
  );
}

interface RunSamplesProps {
  shownRun: ShownRun;
  step: number;
  beside: boolean;
  named: boolean;
}

function RunSamples({ shownRun, step, beside, named }: RunSamplesProps) {
  const { run, slot } = shownRun;
  const all = useSignal(false);
  const pictures = useMemo(() => new KeptPictures(run.source), [run.source]);
  useEffect(() => () => pictures.close(), [pictures]);
  const steps = [...run.view.samples.keys()].sort((a, b) => a - b);
  const at = lastAtMost(steps, step);
  if (at < 0) return null;
  const now = run.view.samples.get(steps[at]!) ?? [];
  const first = run.view.samples.get(steps[0]!) ?? [];
  const few = all.value ? now : now.slice(0, FEW);
  return (
    <div class="run-samples">
      {named && (
        <h3 class="compare-name">
          <Swatch slot={slot} />
          {run.name}
          {steps[at] !== step && <span class="quiet"> at update {steps[at]}</span>}
        </h3>
      )}
      <ul class={`sample-grid ${beside && at > 0 ? "sample-grid-pairs" : ""}`}>
        {few.map((sample, i) => (
          <li key={sample.path.replace(/step-\d+/, "")}>
            <figure class="sample">
              <div class="sample-pictures">
                {beside && at > 0 && first[i] && (
                  <Picture {...{ pictures }} sample={first[i]} when={`at update ${steps[0]}`} />
                )}
                <Picture {...{ pictures }} sample={sample} when={`at update ${steps[at]}`} />
              </div>
              <figcaption title={sample.item}>{sample.item || `seed ${sample.seed}`}</figcaption>
            </figure>
          </li>
        ))}
      </ul>
      {now.length > FEW && (
        <div>
          <Button
            small
            onClick={() => {
              all.value = !all.value;
            }}
          >
            {all.value ? "Show fewer" : `Show all ${counted(now.length, "sample")}`}
          </Button>
        </div>
      )}
    </div>
  );
}

function Picture({ pictures, sample, when }: { pictures: KeptPictures; sample: SampleView; when: string }) {
  const url = useSignal<string | null>(pictures.known(sample.path));
  useEffect(() => {
    let gone = false;
    void pictures.url(sample.path).then((found) => {
      if (!gone) url.value = found;
    });
    return () => {
      gone = true;
    };
  }, [pictures, sample.path]);
  const name = `${sample.item || "sample"}, ${when}`;
  return url.value ? (
    <img class="pixels" src={url.value} alt={name} width={128} height={128} />
  ) : (
    <span class="sample-blank" role="img" aria-label={`${name}, not there`} />
  );
}
