// What a training run looks like while it goes on: where it is, how fast, the loss, the samples from step 0 on, memory and
// events. "What am I looking at?" explains each part in one sentence.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { compact, duration } from "../../evaluation/format.ts";
import { Badge, Button } from "../components/basic.tsx";
import { Chart } from "../components/chart.tsx";
import { Progress } from "../components/feedback.tsx";
import { MemoryBar } from "../components/memory_bar.tsx";
import { PictureStrip } from "../components/pictures.tsx";
import { STATUS } from "../components/run_status.ts";
import { Spoken } from "../components/spoken.tsx";
import type { LiveRun } from "../live_run.ts";
import type { PhaseView } from "../run_view.ts";
import { effective } from "../settings.ts";
import { recall, remember } from "../small_state.ts";
import { machine, runSource, settings } from "../store.ts";
import { Fetching, fetching } from "./downloads.tsx";
import { EventList } from "./event_list.tsx";
import { useRunGuards } from "./guards.ts";
import { lastOf, phaseText, runPace } from "./progress.ts";
import { SampleZoom } from "./sample_zoom.tsx";

const EXPLANATIONS = {
  figures:
    "An update shows the model a few pictures under noise and moves the LoRA a little towards removing that noise.",
  loss: "Loss is how far the model’s guess of the noise is off: the thin line is each update, the thick one the mean of the last 20, the dots the same measurement repeated with fixed noise. It jumps because noise levels differ; the direction counts.",
  samples:
    "Every row is one prompt, drawn from the same noise each time. The first column is the model before training, so what changes along a row is what the LoRA has learnt.",
  size: "The size of an update relative to the LoRA’s weights. It falls as the run settles; a sudden rise means the learning rate is too high.",
  memory: "What the run has reserved on the GPU. It is planned before the run starts and does not grow.",
  events: "Checkpoints, warnings and messages. A run that is cut off goes on from its last checkpoint.",
} as const;

export function LivePanel({ run }: { run: LiveRun | null }) {
  const explain = useSignal(false);
  useEffect(() => {
    void recall("explain").then((known) => {
      explain.value = known ?? false;
    });
  }, []);
  const toggle = () => {
    explain.value = !explain.value;
    void remember("explain", explain.value);
  };
  if (!run)
    return (
      <div class="live live-empty">
        <p>Loss, samples, speed and memory appear here as the run goes on.</p>
        <p class="small">
          The first pictures are drawn before training, so that there is something to compare with. What the model draws
          now, “Compare” below shows at once.
        </p>
      </div>
    );
  return <Live run={run} explain={explain.value} onExplain={toggle} />;
}

interface LiveProps {
  run: LiveRun;
  explain: boolean;
  onExplain: () => void;
}

function Live({ run, explain, onExplain }: LiveProps) {
  // Reading it draws the panel again whenever the view has grown.
  const version = run.version.value;
  const { view } = run;
  const forming = run.forming.value;
  const source = useMemo(() => runSource(run.name), [run.name]);
  const zoomed = useSignal<number | null>(null);
  useRunGuards(run);
  const status = run.status.value;
  const [kind, word] = STATUS[status];
  const { every } = effective(settings.value, machine.value);
  const pace = runPace(view, every);
  const series = (name: string) => view.series.get(name);
  const Explain = ({ of }: { of: keyof typeof EXPLANATIONS }) =>
    explain ? <p class="explain">{EXPLANATIONS[of]}</p> : null;
  return (
    <div class="live">
      <div class="row spread">
        <div class="row">
          <Badge kind={kind}>{word}</Badge>
          <span class="small quiet">
            {view.steps > 0 ? `update ${view.step} of ${view.steps}` : "before the first update"}
          </span>
        </div>
        <Button small pressed={explain} onClick={onExplain}>
          What am I looking at?
        </Button>
      </div>
      <Work run={run} />
      <dl class="figures">
        <Figure
          name="Updates a second"
          value={pace.updatesPerSecond === null ? "–" : compact(pace.updatesPerSecond, 3)}
        />
        <Figure name="Time left" value={run.active ? duration(pace.left) : "–"} />
        <Figure name="Elapsed" value={duration(pace.elapsed)} />
        <Figure name="Loss, mean of 20" value={compact(lastOf(series("loss_mean")))} />
        <Figure name="Validation loss" value={compact(lastOf(series("val_loss")))} />
      </dl>
      <Explain of="figures" />
      {view.series.size === 0 ? (
        <Preparation phases={view.phases} />
      ) : (
        <section class="section">
          <h3>Loss</h3>
          <Chart
            label="Loss by update"
            version={version}
            xMax={view.steps}
            logToggle
            curves={[
              { label: "each update", data: series("loss"), colour: 6, look: "thin" },
              { label: "mean of 20", data: series("loss_mean"), colour: 1, look: "thick" },
              { label: "validation", data: series("val_loss"), colour: 2, look: "dots" },
            ]}
          />
          <Explain of="loss" />
        </section>
      )}
      {(view.samples.size > 0 || forming) && (
        <section class="section">
          <h3>Samples</h3>
          <PictureStrip
            source={source}
            samples={view.samples}
            forming={forming}
            onChoose={(index) => {
              zoomed.value = index;
            }}
          />
          <Explain of="samples" />
        </section>
      )}
      <div class="two">
        <section class="section" hidden={!series("update_ratio")}>
          <h3>Size of an update</h3>
          <Chart
            label="Size of an update relative to the weights"
            version={version}
            xMax={view.steps}
            height={96}
            legend={false}
            curves={[{ label: "update size", data: series("update_ratio"), colour: 3 }]}
          />
          <Explain of="size" />
        </section>
        <section class="section" hidden={!run.memory.value}>
          {run.memory.value && <MemoryBar categories={run.memory.value} />}
          <Explain of="memory" />
        </section>
      </div>
      <section class="section">
        <h3>Events</h3>
        <EventList notes={view.notes} began={view.began} />
        <Explain of="events" />
      </section>
      <SampleZoom
        view={view}
        source={source}
        index={zoomed.value}
        onClose={() => {
          zoomed.value = null;
        }}
      />
      <Spoken sentence={() => sentenceOf(run)} about={[run, status]} live={status === "running"} />
    </div>
  );
}

/** What was done before the first number: phase by phase, with counts and seconds. */
function Preparation({ phases }: { phases: readonly PhaseView[] }) {
  return (
    <section class="section">
      <h3>Preparing</h3>
      <ol class="phases plain-list">
        {phases.map(({ name, done, total, unit, began, last }) => (
          <li key={`${name} ${began}`} class={done < total ? "phase-open" : ""}>
            <span>{phaseText(name)}</span>
            <span class="quiet">
              {done}/{total} {unit}
            </span>
            <span class="quiet">{duration(last - began)}</span>
          </li>
        ))}
        {phases.length === 0 && <li class="quiet">The worker opens the GPU and reads the model’s files.</li>}
      </ol>
      <p class="small quiet">Kernels are compiled once and kept by the browser: the next run begins sooner.</p>
    </section>
  );
}

const Figure = ({ name, value }: { name: string; value: string }) => (
  <div class="figure">
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

/** What is being done: bytes on their way while there are any, else the phase with its count. */
function Work({ run }: { run: LiveRun }) {
  const status = run.status.value;
  // A component that reads signals is drawn again for them alone, not because its parent was.
  void run.version.value;
  if (!run.active) return null;
  const coming = fetching();
  if (coming) return <Fetching {...coming} />;
  const { phase, step, steps } = run.view;
  if (!phase) return <Progress label="Opening the GPU" done={0} total={1} />;
  if (status === "paused")
    return <Progress label="Paused" done={step} total={steps} text={`${step}/${steps} updates`} />;
  const label = phaseText(phase.name);
  const text = `${phase.done}/${phase.total} ${phase.unit}`;
  return <Progress label={label} done={phase.done} total={phase.total || steps} text={text} />;
}

function sentenceOf(run: LiveRun): string {
  const { step, steps, series } = run.view;
  const loss = lastOf(series.get("loss_mean"));
  const [, word] = STATUS[run.status.value];
  return `${word}. Update ${step} of ${steps}${loss === null ? "" : `, loss ${compact(loss)}`}.`;
}
