// The runs that can be watched, by where they are: on the server behind the page, in this browser, in a folder that is dropped
// or picked, and the recordings that come along.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { duration, grouped } from "../../evaluation/format.ts";
import { Badge, type BadgeKind, Button } from "../components/basic.tsx";
import { droppedTrees, handleTree, listTree } from "../sources/folder.ts";
import type { ServedRun } from "../sources/served.ts";
import {
  browserRuns,
  folderProblem,
  folderRuns,
  idOf,
  isFull,
  isShown,
  openFolders,
  playRun,
  recorded,
  removeRun,
  served,
  shown,
  watchBrowser,
  watchRun,
  watchServed,
} from "./shown_runs.ts";

/** Seconds of silence after which a run that says it is running may have died. */
const SILENT_AFTER = 120;

const STATES: Readonly<Record<string, [BadgeKind, string]>> = {
  running: ["live", "Running"],
  finished: ["good", "Finished"],
  stopped: ["plain", "Stopped"],
  failed: ["bad", "Failed"],
  // It says that it is running, and no tab works on it.
  "cut off": ["warn", "Cut off"],
};

/** A state of run.json as a badge; one that this page does not know is shown as it is. */
export function StateBadge({ state, silent = 0 }: { state: string; silent?: number }) {
  if (state === "running" && silent > SILENT_AFTER) return <Badge kind="warn">Silent {roughly(silent)}</Badge>;
  const [kind, word] = STATES[state] ?? ["plain", state && state !== "unknown" ? state : "No record"];
  return <Badge kind={kind}>{word}</Badge>;
}

/** A long time in its largest unit. */
function roughly(seconds: number): string {
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** Where list and panels lie below each other, a chosen run is brought into sight. */
function toPanels(): void {
  if (!matchMedia("(max-width: 61.99rem)").matches) return;
  setTimeout(() => document.querySelector(".watch-main")?.scrollIntoView({ block: "start" }), 50);
}

interface RowProps {
  id: string;
  name: string;
  details: string;
  badge?: ComponentChildren;
  onShow: (beside: boolean) => void;
}

/** One run: a click shows it alone; the button beside lays it over those that are shown. */
function Row({ id, name, details, badge, onShow }: RowProps) {
  const here = isShown(id);
  const several = shown.value.length > 1;
  return (
    <li class={`run-row ${here ? "run-row-shown" : ""}`}>
      <button
        type="button"
        class="run-name"
        aria-pressed={here}
        onClick={() => {
          onShow(false);
          toPanels();
        }}
      >
        <span class="run-title">{name}</span>
        <span class="run-details">{details}</span>
      </button>
      <span class="run-actions">
        {badge}
        {here && several && (
          <Button small kind="quiet" label={`Remove ${name}`} onClick={() => removeRun(id)}>
            Remove
          </Button>
        )}
        {!here && shown.value.length > 0 && (
          <Button
            small
            kind="quiet"
            label={`Compare ${name} with what is shown`}
            disabledReason={isFull.value ? "six runs are shown already" : null}
            onClick={() => onShow(true)}
          >
            Compare
          </Button>
        )}
      </span>
    </li>
  );
}

const Group = ({ title, children }: { title: string; children: ComponentChildren }) => (
  <section class="run-group">
    <h3>{title}</h3>
    {children}
  </section>
);

export function RunList() {
  return (
    <div class="run-list">
      <ServedRuns />
      <FolderRuns />
      {browserRuns.value.length > 0 && (
        <Group title="In this browser">
          <ul>
            {browserRuns.value.map(({ name, record }) => (
              <Row
                key={name}
                id={idOf("browser", name)}
                name={name}
                details={details(record?.command, record?.started)}
                badge={<StateBadge state={record?.state ?? "unknown"} />}
                onShow={(beside) => watchBrowser(name, beside)}
              />
            ))}
          </ul>
        </Group>
      )}
      {recorded.value.length > 0 && (
        <Group title="Recorded">
          <ul>
            {recorded.value.map((one) => (
              <Row
                key={one.name}
                id={idOf("recorded", one.name)}
                name={one.title}
                details={`${dayOf(one.started)}, ${duration(one.seconds)}`}
                onShow={(beside) => playRun(one, beside)}
              />
            ))}
          </ul>
        </Group>
      )}
    </div>
  );
}

function ServedRuns() {
  const list = served.value;
  if (list === undefined) return null;
  if (list === null || list.runs.length === 0)
    return (
      <Group title="On a server">
        {list === null ? (
          <p class="small quiet">
            Start <code>npx longtail serve</code> where the runs are and open the address that it prints; they appear
            here, live.
          </p>
        ) : (
          <p class="small quiet">No runs yet. One that starts now appears here by itself.</p>
        )}
      </Group>
    );
  return (
    <Group title="On the server">
      <ul>
        {list.runs.map((run) => (
          <Row
            key={run.name}
            id={idOf("served", run.name)}
            name={run.name}
            details={servedDetails(run)}
            badge={<StateBadge state={run.state} silent={silence(run, list.now)} />}
            onShow={(beside) => watchServed(run.name, beside)}
          />
        ))}
      </ul>
    </Group>
  );
}

/** Seconds since a run's log was last written, by the server's clock. */
export const silence = (run: ServedRun, now: number) => (run.heard > 0 ? Math.max(0, (now - run.heard) / 1000) : 0);

function servedDetails(run: ServedRun): string {
  const updates =
    run.steps > 0 && run.state === "running" ? `${grouped(run.step)} of ${grouped(run.steps)}` : grouped(run.step);
  return [run.command, `update ${updates}`, run.started && dayOf(run.started)].filter(Boolean).join(", ");
}

function details(command?: string, started?: string): string {
  return [command, started && dayOf(started)].filter(Boolean).join(", ") || "no record";
}

/** A day for people, with the time where it is today. */
export function dayOf(iso: string): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? `today ${date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`
    : date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}

/** True while files are dragged over the page. */
export function useDrop(onFiles: (data: DataTransfer) => void): boolean {
  const [over, setOver] = useState(false);
  const act = useRef(onFiles);
  act.current = onFiles;
  useEffect(() => {
    let depth = 0;
    const files = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    // Other modes take drops of their own.
    const here = () => document.getElementById("panel-watch")?.hidden !== true;
    const move = (by: number) => (event: DragEvent) => {
      if (!files(event) || !here()) return;
      event.preventDefault();
      depth = Math.max(0, depth + by);
      setOver(depth > 0);
    };
    const drop = (event: DragEvent) => {
      depth = 0;
      setOver(false);
      if (!files(event) || !here() || !event.dataTransfer) return;
      event.preventDefault();
      act.current(event.dataTransfer);
    };
    const [enter, leave, hover] = [move(1), move(-1), move(0)];
    addEventListener("dragenter", enter);
    addEventListener("dragleave", leave);
    addEventListener("dragover", hover);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragenter", enter);
      removeEventListener("dragleave", leave);
      removeEventListener("dragover", hover);
      removeEventListener("drop", drop);
    };
  }, []);
  return over;
}

function FolderRuns() {
  const input = useRef<HTMLInputElement>(null);
  const over = useDrop((data) => void droppedTrees(data).then(openFolders));
  const pick = async () => {
    const picker = (globalThis as { showDirectoryPicker?: () => Promise<FileSystemDirectoryHandle> })
      .showDirectoryPicker;
    if (!picker) return input.current?.click();
    // Rejects where the dialog is closed without a choice.
    const handle = await picker().catch(() => null);
    if (handle) await openFolders([handleTree(handle)]);
  };
  return (
    <Group title="In a folder">
      {folderRuns.value.length > 0 && (
        <ul>
          {folderRuns.value.map((source) => (
            <Row
              key={source.name}
              id={idOf("folder", source.name)}
              name={source.name}
              details={source.live ? "followed while it grows" : "as it was when it was picked"}
              onShow={(beside) => watchRun(source, beside)}
            />
          ))}
        </ul>
      )}
      <div class={`run-drop ${over ? "run-drop-over" : ""}`}>
        <p class="small">Drop a run’s folder here, or a whole runs folder.</p>
        <Button small onClick={() => void pick()}>
          Choose a folder
        </Button>
        <input
          ref={input}
          type="file"
          hidden
          multiple
          aria-label="A run’s folder"
          {...{ webkitdirectory: true }}
          onChange={(event) => {
            const files = [...(event.currentTarget.files ?? [])];
            event.currentTarget.value = "";
            if (files.length > 0) void openFolders([listTree(files)]);
          }}
        />
        {folderProblem.value && (
          <p class="field-error" role="alert">
            {folderProblem.value}
          </p>
        )}
        <p class="field-hint">It is read in this tab and goes nowhere.</p>
      </div>
    </Group>
  );
}
