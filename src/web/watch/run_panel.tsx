// One watched run: where it is, its curves, what happened, how long each phase took, and its configuration. It is made of
// whatever the log holds, so a training, an alignment and a run of a newer version are all shown.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { compact, counted, duration, grouped } from "../../evaluation/format.ts";
import { Button, Card, CopyButton } from "../components/basic.tsx";
import { Chart } from "../components/chart.tsx";
import { Notice, Progress } from "../components/feedback.tsx";
import { Spoken } from "../components/spoken.tsx";
import type { RunView } from "../run_view.ts";
import { type ServedRun, ServedRunSource } from "../sources/served.ts";
import { EventList } from "../train/event_list.tsx";
import { lastOf, phaseText, runPace } from "../train/progress.ts";
import { ControlButtons } from "./control_buttons.tsx";
import { metricGroups } from "./metrics.ts";
import { PlayedRun } from "./played_run.ts";
import { PlayerBar } from "./player_bar.tsx";
import { dayOf, StateBadge, silence } from "./run_list.tsx";
import { served, type WatchableRun } from "./shown_runs.ts";

const ORIGINS = {
  browser: "in this browser",
  served: "on the server",
  folder: "in a folder",
  recorded: "a recording",
} as const;

/** Charts beyond these are folded away. */
const FIRST_CHARTS = 4;

/** The head of a run: which it is, what can be done with it, where it is, and the curve that it is about. */
export function RunPanel({ run, brief = false }: { run: WatchableRun; brief?: boolean }) {
  // Reading it draws the panel again whenever the view has grown.
  run.version.value;
  const { view } = run;
  const { record, device, hasReport } = run.facts.value;
  const served = listedRun(run);
  const played = run instanceof PlayedRun ? run : null;
  const said = served?.state ?? record?.state ?? "unknown";
  const isCutOff = said === "running" && run.source.origin === "browser" && run.hearing.value === "ended";
  const state = played ? "finished" : isCutOff ? "cut off" : said;
  const facts = [record?.command, ORIGINS[run.source.origin], device, record?.started && dayOf(record.started)];
  return (
    <Card
      title={played?.recording.title ?? run.name}
      class="run-panel"
      aside={played ? null : <StateBadge state={state} silent={served?.silent ?? 0} />}
    >
      {played ? (
        <PlayerBar run={played} />
      ) : (
        <div class="row spread">
          <p class="small quiet grow">{facts.filter(Boolean).join(" · ")}</p>
          {run.source instanceof ServedRunSource && served?.report && (
            <a class="button button-small" href={run.source.url("report.html")} target="_blank" rel="noreferrer">
              Open the report
            </a>
          )}
          {hasReport && <SaveReport run={run} />}
        </div>
      )}
      {run.source instanceof ServedRunSource && state === "running" && <ControlButtons source={run.source} />}
      <Troubles run={run} state={state} reason={record?.reason ?? ""} />
      <Where view={view} worked={run.clock.seconds} working={!played && state === "running"} />
      {brief ? (
        <Fold title="Curves, events, phases and configuration">
          <div class="run-panel-inside">
            <Curves run={run} from={0} />
            <Rest run={run} />
          </div>
        </Fold>
      ) : (
        <Curves run={run} from={0} to={1} />
      )}
      <Spoken sentence={() => sentenceOf(run)} about={[run]} live />
    </Card>
  );
}

/** What the server's list says of a run; null where it is not the server's. */
function listedRun(run: WatchableRun): (ServedRun & { silent: number }) | null {
  const list = run.source.origin === "served" ? served.value : null;
  const found = list?.runs.find(({ name }) => name === run.name);
  return list && found ? { ...found, silent: silence(found, list.now) } : null;
}

/** Everything else of a run: its other curves, what happened, how long each phase took, its configuration. */
export function RunDetails({ run }: { run: WatchableRun }) {
  run.version.value;
  if (run.view.began === null && !run.facts.value.config) return null;
  return (
    <Card title="Details" class="run-panel">
      <Curves run={run} from={1} />
      <Rest run={run} />
    </Card>
  );
}

function Rest({ run }: { run: WatchableRun }) {
  return (
    <>
      <Events view={run.view} />
      <Phases view={run.view} />
      <Configuration run={run} />
    </>
  );
}

/** What stands in the way of a whole picture of the run, each with what it means. */
function Troubles({ run, state, reason }: { run: WatchableRun; state: string; reason: string }) {
  const { torn, unknown } = run.source.facts;
  const hearing = run.hearing.value;
  const foreign = [...unknown].map(([kind, count]) => `${count} × ${kind}`);
  return (
    <>
      {hearing === "lost" && (
        <Notice kind="warn" title="The connection is lost">
          <p class="small">What came so far stays here. It is tried again by itself.</p>
        </Notice>
      )}
      {state === "failed" && (
        <Notice kind="bad" title="The run failed">
          <p class="small">{reason || "Its last events say why."}</p>
        </Notice>
      )}
      {state === "stopped" && reason && (
        <Notice title="The run was stopped">
          <p class="small">{reason}</p>
        </Notice>
      )}
      {hearing !== "reading" && run.view.began === null && (
        <Notice title={state === "running" ? "Nothing logged yet" : "The log is empty"}>
          <p class="small">
            {state === "running"
              ? "The run has begun and has written nothing so far; its first lines appear here by themselves."
              : "The run’s folder is there, and its log.jsonl holds no line that can be read."}
          </p>
        </Notice>
      )}
      {torn > 0 && (
        <p class="small quiet">
          {counted(torn, "line")} of the log {torn === 1 ? "is" : "are"} torn or damaged and left out.
        </p>
      )}
      {foreign.length > 0 && (
        <p class="small quiet">
          The log has events that this page does not know, from a newer version perhaps: {foreign.join(", ")}. All
          others are shown.
        </p>
      )}
    </>
  );
}

function Where({ view, worked, working }: { view: RunView; worked: number; working: boolean }) {
  if (view.began === null) return null;
  const pace = runPace(view, 0);
  const main = view.series.has("reward") ? "reward" : "loss";
  const figures: [string, string][] = [
    ["Update", view.steps > 0 ? `${grouped(view.step)} of ${grouped(view.steps)}` : grouped(view.step)],
    ["Updates a second", pace.updatesPerSecond === null ? speedOf(view) : compact(pace.updatesPerSecond)],
    ["Worked", duration(worked)],
    [
      main === "reward" ? "Reward" : "Loss",
      compact(lastOf(view.series.get(`${main}_mean`)) ?? lastOf(view.series.get(main))),
    ],
  ];
  if (view.series.has("val_loss")) figures.push(["Validation loss", compact(lastOf(view.series.get("val_loss")))]);
  return (
    <>
      {working && view.phase && (
        <Progress
          label={phaseText(view.phase.name)}
          done={view.phase.done}
          total={view.phase.total}
          text={`${view.phase.done} of ${view.phase.total} ${view.phase.unit}`}
        />
      )}
      <dl class="figures">
        {figures.map(([name, value]) => (
          <div class="figure" key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}

/** Updates a second of a run that does not log them: all its updates by the time of their phases. */
function speedOf(view: RunView): string {
  const phases = view.phases.filter(({ unit }) => unit === "updates");
  const seconds = phases.reduce((sum, { began, last }) => sum + last - began, 0);
  return seconds > 0 && view.step > 0 ? compact(view.step / seconds) : "–";
}

function Curves({ run, from, to = Number.POSITIVE_INFINITY }: { run: WatchableRun; from: number; to?: number }) {
  const groups = metricGroups(run.view).slice(from, to);
  const version = run.version.value;
  if (groups.length === 0) return null;
  const [first, more] = [groups.slice(0, FIRST_CHARTS), groups.slice(FIRST_CHARTS)];
  const charts = (some: typeof groups) => (
    <div class="run-charts">
      {some.map(({ title, log, curves }) => (
        <section class="section" key={title}>
          <h3>{title}</h3>
          <Chart
            label={`${title} by update`}
            {...{ version, curves, log }}
            xMax={run.view.steps}
            height={from === 0 ? 200 : 150}
            logToggle
          />
        </section>
      ))}
    </div>
  );
  return (
    <>
      {charts(first)}
      {more.length > 0 && (
        <Fold title={`More curves: ${more.map(({ title }) => title.toLowerCase()).join(", ")}`}>{charts(more)}</Fold>
      )}
    </>
  );
}

/** A part that is made when it is opened: hidden charts cost time and have no width. */
function Fold({ title, children }: { title: string; children: ComponentChildren }) {
  const open = useSignal(false);
  return (
    <details
      onToggle={(event) => {
        open.value = event.currentTarget.open;
      }}
    >
      <summary>{title}</summary>
      {open.value && children}
    </details>
  );
}

function Events({ view }: { view: RunView }) {
  const grave = view.notes.filter(({ kind }) => kind === "warning" || kind === "error").length;
  return (
    <section class="section">
      <h3>
        Events
        {grave > 0 && <span class="quiet"> · {counted(grave, "warning or error", "warnings and errors")}</span>}
      </h3>
      <EventList notes={view.notes} began={view.began} />
    </section>
  );
}

/** Seconds below which phases are shown together. */
const SHORT_PHASE = 0.05;

/** Phases of one name together, the longest first. */
export function phaseTimes(view: RunView): { name: string; seconds: number; times: number }[] {
  const byName = new Map<string, { seconds: number; times: number }>();
  for (const { name, began, last } of view.phases) {
    const plain = name.replace(/, step \d+$/, "");
    const known = byName.get(plain) ?? { seconds: 0, times: 0 };
    byName.set(plain, { seconds: known.seconds + Math.max(0, last - began), times: known.times + 1 });
  }
  const all = [...byName].map(([name, facts]) => ({ name, ...facts }));
  return all.filter(({ seconds }) => seconds >= SHORT_PHASE).sort((a, b) => b.seconds - a.seconds);
}

function Phases({ view }: { view: RunView }) {
  const times = phaseTimes(view);
  if (times.length === 0) return null;
  const longest = times[0]!.seconds;
  return (
    <Fold title="Phases and times">
      <table class="table phase-table">
        <tbody>
          {times.map(({ name, seconds, times: count }) => (
            <tr key={name}>
              <td>
                {name === "draw samples" ? "Drawing samples" : phaseText(name)}
                {count > 1 && <span class="quiet"> · {count} times</span>}
              </td>
              <td class="phase-bar">
                <span style={{ width: `${Math.max(1, (100 * seconds) / longest)}%` }} />
              </td>
              <td class="number">{duration(seconds)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Fold>
  );
}

function Configuration({ run }: { run: WatchableRun }) {
  const { config } = run.facts.value;
  if (!config) return null;
  return (
    <Fold title="Configuration">
      <div class="stack">
        <div class="row">
          <CopyButton text={() => config}>Copy</CopyButton>
          <span class="small quiet">Every key with its value, as the run was started.</span>
        </div>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable with the keyboard */}
        <pre class="code-block config" tabIndex={0}>
          {config}
        </pre>
      </div>
    </Fold>
  );
}

/** A report in a folder is saved instead of opened: the page's own policy would take its styles away. */
function SaveReport({ run }: { run: WatchableRun }) {
  const save = async () => {
    const blob = await run.source.blob("report.html");
    if (!blob) return;
    const url = URL.createObjectURL(blob);
    const link = document.createElement("a");
    link.href = url;
    link.download = `${run.name}.html`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  return (
    <Button small onClick={() => void save()}>
      Save the report
    </Button>
  );
}

function sentenceOf(run: WatchableRun): string {
  const { step, steps, series } = run.view;
  const name = series.has("reward") ? "reward" : "loss";
  const value = lastOf(series.get(name));
  const many = steps > 0 ? ` of ${steps}` : "";
  return `${run.name}: update ${step}${many}${value === null ? "" : `, ${name} ${compact(value)}`}.`;
}
