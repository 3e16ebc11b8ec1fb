// The alignment of this tab while it goes on: which phase it is in, how long the rest will take, the buttons of the run, and
// the panel below. A run of another kind is not shown here.

import { useEffect, useMemo } from "preact/hooks";
import { capitalised, duration, score } from "../../evaluation/format.ts";
import { Badge, Button } from "../components/basic.tsx";
import { ErrorNotice, Progress, toastError } from "../components/feedback.tsx";
import { STATUS } from "../components/run_status.ts";
import { Spoken } from "../components/spoken.tsx";
import type { LiveRun } from "../live_run.ts";
import type { RunStatus } from "../protocol.ts";
import type { RunView } from "../run_view.ts";
import { recall, remember } from "../small_state.ts";
import { activeRun, device, engine, runSource, wireError } from "../store.ts";
import { useRunGuards } from "../train/guards.ts";
import { lastOf } from "../train/progress.ts";
import { ResumeButton } from "../train/resume.tsx";
import { EVAL_REWARD, secondsPerUpdate } from "./align_view.ts";
import { AlignPanel } from "./panel.tsx";
import { flopsPerUpdate } from "./state.ts";

/** What a phase of an alignment does, for people. */
const PHASES: Readonly<Record<string, string>> = {
  "evaluate before": "Drawing and judging before",
  "evaluate after": "Drawing and judging after",
  align: "Aligning",
  save: "Saving",
  "save weights": "Saving the weights",
  "trace and tune": "Choosing kernels",
  "compile and load": "Compiling kernels",
};

export function LiveAlignment() {
  const run = activeRun.value;
  if (run?.command !== "align") return null;
  return <Live key={run.name} run={run} />;
}

function Live({ run }: { run: LiveRun }) {
  // The engine says where run folders are read once it is connected, which its device is later than.
  const isOpen = device.value !== null;
  const source = useMemo(() => runSource(run.name), [run.name, isOpen]);
  // Reading the version is what draws this anew when events have come.
  void run.version.value;
  const status = run.status.value;
  const [kind, words] = STATUS[status];
  const ended = !run.active;
  useRunGuards(run);
  useEffect(() => {
    if (ended) void rememberSpeed(run.view);
  }, [ended, run.view]);
  return (
    <section class="card lt-live" aria-labelledby="lt-live-title">
      <header class="card-head">
        <h2 id="lt-live-title">{run.name}</h2>
        <Badge kind={kind}>{words}</Badge>
        <Buttons run={run} status={status} />
      </header>
      {run.error.value && <ErrorNotice error={run.error.value} />}
      {run.active && <Phase view={run.view} paused={status === "paused"} />}
      <AlignPanel view={run.view} source={source} ended={ended} />
      <Notes view={run.view} />
      <Spoken sentence={() => sentenceOf(run)} about={[run, status]} live={status === "running"} />
    </section>
  );
}

function sentenceOf(run: LiveRun): string {
  const { step, steps, series } = run.view;
  const reward = lastOf(series.get(EVAL_REWARD));
  const [, word] = STATUS[run.status.value];
  return `${capitalised(word)}. Update ${step} of ${steps}${reward === null ? "" : `, reward ${score(reward)}`}.`;
}

function Phase({ view, paused }: { view: RunView; paused: boolean }) {
  const { phase } = view;
  if (!phase) return <Progress label="Starting" done={0} total={1} />;
  const each = secondsPerUpdate(view);
  const left = phase.name === "align" && each !== null && !paused ? (phase.total - phase.done) * each : null;
  const rest = left === null ? "" : `, ${duration(left)} of updates left`;
  return (
    <Progress
      label={PHASES[phase.name] ?? capitalised(phase.name)}
      done={phase.done}
      total={phase.total}
      text={`${phase.done} of ${phase.total} ${phase.unit}${rest}`}
    />
  );
}

function Buttons({ run, status }: { run: LiveRun; status: RunStatus }) {
  const call = (what: "pause" | "resume" | "stop" | "step" | "saveNow") => async () => {
    try {
      const worker = await engine();
      await (what === "step" ? worker.step(1) : worker[what]());
    } catch (error) {
      toastError(wireError(error));
    }
  };
  return (
    <div class="row lt-buttons">
      {status === "running" && (
        <Button small onClick={call("pause")}>
          Pause
        </Button>
      )}
      {status === "paused" && (
        <Button small kind="primary" onClick={call("resume")}>
          Go on
        </Button>
      )}
      {status === "paused" && (
        <Button small title="Makes one update and pauses again" onClick={call("step")}>
          Step
        </Button>
      )}
      {(status === "running" || status === "paused") && (
        <>
          <Button small onClick={call("saveNow")}>
            Save now
          </Button>
          <Button small kind="danger" onClick={call("stop")}>
            Stop and save
          </Button>
        </>
      )}
      {(status === "stopped" || status === "failed") && <ResumeButton run={run} />}
    </div>
  );
}

/** Warnings of the run, newest last; what a checkpoint or message says is in the log. */
function Notes({ view }: { view: RunView }) {
  const notes = view.notes.filter((note) => note.kind === "warning" || note.kind === "error");
  if (notes.length === 0) return null;
  return (
    <details class="lt-notes">
      <summary>{notes.length === 1 ? "1 warning" : `${notes.length} warnings`}</summary>
      <ul>
        {notes.map((note, i) => (
          <li key={`${note.t} ${i}`} class={`event-${note.kind}`}>
            {note.text} <span class="notice-code">{note.code}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}

/** Keeps what an update took on this adapter, as arithmetic a second, for the next estimate. */
async function rememberSpeed(view: RunView): Promise<void> {
  const each = secondsPerUpdate(view);
  const name = device.value?.name;
  const flops = flopsPerUpdate.value;
  if (each === null || !name || flops === null) return;
  const speeds = (await recall("speeds")) ?? {};
  await remember("speeds", { ...speeds, [name]: flops / each });
}
