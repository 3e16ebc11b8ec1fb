// The page's frame: header with the three modes, the mode that is shown, and what lies over everything (messages, questions,
// the storage panel). A mode that was opened stays alive while another one is shown, so a run goes on being drawn.

import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button, ICONS, Icon } from "./components/basic.tsx";
import { Questions, Toasts, toast } from "./components/feedback.tsx";
import { lazy } from "./components/lazy.tsx";
import { Tabs } from "./components/tabs.tsx";
import type { LiveRun } from "./live_run.ts";
import { longtailAddress, pickProblems, readPicks } from "./longtail/address.ts";
import { settingsToHash } from "./settings.ts";
import { StoragePanel, storageOpen } from "./storage_panel.tsx";
import { activeRun, deviceLoss, linkProblems, readAddress, settings, warning } from "./store.ts";
import { theme, toggleTheme } from "./theme.ts";
import { TrainMode } from "./train/mode.tsx";

type Mode = "train" | "longtail" | "watch";

const MODES: readonly { id: Mode; text: string }[] = [
  { id: "train", text: "Train a LoRA" },
  { id: "longtail", text: "The long tail" },
  { id: "watch", text: "Watch a run" },
];

const LongTail = lazy(() => import("./longtail/mode.tsx").then((module) => module.default), "the long tail");
const Watch = lazy(() => import("./watch/mode.tsx").then((module) => module.default), "the watched run");

function modeOf(hash: string): Mode {
  const named = new URLSearchParams(hash.replace(/^#/, "")).get("mode");
  return MODES.find(({ id }) => id === named)?.id ?? "train";
}

export const mode = signal<Mode>(modeOf(location.hash));
readPicks(location.hash);
const opened = signal<ReadonlySet<Mode>>(new Set([mode.value]));

/** Shows a mode; the address follows. */
export function openMode(next: Mode): void {
  mode.value = next;
  if (!opened.value.has(next)) opened.value = new Set([...opened.value, next]);
  history.replaceState(null, "", addressOf(next));
}

const addressOf = (which: Mode): string =>
  which === "train" ? trainAddress() : which === "longtail" ? longtailAddress.value : `#mode=${which}`;

/** The address of the Train mode with its settings. */
export function trainAddress(): string {
  const hash = settingsToHash(settings.value);
  return hash ? `#${hash}` : `${location.pathname}${location.search}`;
}

export function App() {
  useAddress();
  useMessages();
  const shown = mode.value;
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header class="top">
        <div class="top-line page-width">
          <a class="wordmark" href="#mode=train">
            <Mark />
            Longtail
          </a>
          <Tabs label="What to do" tabs={MODES} chosen={shown} onChoose={openMode} />
          <div class="tools">
            <Button kind="quiet" class="button-icon" label="Storage" title="Storage" onClick={() => openStorage()}>
              <Icon path={ICONS.disk} />
            </Button>
            <Button
              kind="quiet"
              class="button-icon"
              label={theme.value === "dark" ? "Light theme" : "Dark theme"}
              title={theme.value === "dark" ? "Light theme" : "Dark theme"}
              onClick={toggleTheme}
            >
              <Icon path={theme.value === "dark" ? ICONS.sun : ICONS.moon} />
            </Button>
          </div>
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {MODES.filter(({ id }) => opened.value.has(id)).map(({ id }) => (
          <div
            key={id}
            id={`panel-${id}`}
            class="page-width"
            role="tabpanel"
            aria-labelledby={`tab-${id}`}
            hidden={id !== shown}
          >
            {id === "train" ? <TrainMode /> : id === "longtail" ? <LongTail /> : <Watch />}
          </div>
        ))}
      </main>
      <footer class="foot">
        <div class="page-width row spread">
          <span>Everything is computed in this tab. Pictures, weights and runs stay on this machine.</span>
          <span>Longtail · MIT licence</span>
        </div>
      </footer>
      <Toasts />
      <Questions />
      <StoragePanel />
    </>
  );
}

/** Whole per cent of the tab's run: the frame is drawn again a hundred times, not with every update. */
const progress = computed(() => {
  const run = activeRun.value;
  if (!run || run.version.value < 0 || run.view.steps === 0) return null;
  return Math.floor((100 * run.view.step) / run.view.steps);
});

function openStorage(): void {
  storageOpen.value = true;
}

const Mark = () => (
  <svg viewBox="0 0 32 32" aria-hidden="true">
    <path d="M5 5c2 12 7 17.500 21 19" fill="none" stroke="var(--accent)" stroke-width="3.200" stroke-linecap="round" />
    <circle cx="26" cy="24" r="3.400" fill="var(--series-4)" />
  </svg>
);

/** The address follows the form, and a pasted address opens its mode. */
function useAddress(): void {
  const form = settings.value;
  useEffect(() => {
    if (mode.value !== "train" || linkProblems.value.length > 0) return;
    const wanted = trainAddress();
    if (wanted !== location.hash) history.replaceState(null, "", wanted);
  }, [form]);
  const picks = longtailAddress.value;
  useEffect(() => {
    // Of a link that was not used it can still be seen what was wrong.
    if (mode.value !== "longtail" || pickProblems.value.length > 0) return;
    if (picks !== location.hash) history.replaceState(null, "", picks);
  }, [picks]);
  useEffect(() => {
    const follow = () => {
      // `#content` is the skip link's, not an address of a mode.
      if (!location.hash.includes("=")) return;
      const next = modeOf(location.hash);
      if (next === "train") readAddress(location.hash);
      readPicks(location.hash);
      if (next !== mode.value) openMode(next);
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
}

/** What happens to the device and the run, said in the corner whatever mode is shown. */
function useMessages(): void {
  const loss = deviceLoss.value;
  useEffect(() => {
    if (!loss) return;
    if (loss.run === null)
      toast({
        kind: "warn",
        title: "The GPU was reset",
        text: "No run was under way. It is opened again when needed.",
      });
    else if (loss.recovering)
      toast({ kind: "warn", title: "The GPU was reset", text: `Continuing from update ${loss.step} by itself.` });
    else
      toast({ kind: "bad", title: "The GPU was reset again", text: "The run has ended; its last checkpoint is kept." });
  }, [loss]);
  const warned = warning.value;
  useEffect(() => {
    if (warned) toast({ kind: "warn", title: warned.text, text: warned.code });
  }, [warned]);
  const run = activeRun.value;
  const status = run?.status.value;
  const percent = progress.value;
  useEffect(() => {
    if (!run || mode.value === (run.command === "train" ? "train" : "longtail")) return;
    if (status === "finished") toast({ kind: "good", title: `“${run.name}” is finished` });
    if (status === "failed") toast({ kind: "bad", title: `“${run.name}” failed` });
  }, [run, status]);
  useEffect(() => {
    document.title = run ? titleOf(run) : "Longtail";
  }, [run, status, percent]);
}

/** The tab's title while a run is under way, for a tab that is out of sight. */
function titleOf(run: LiveRun): string {
  const { step, steps } = run.view;
  const word = run.status.value;
  if (word === "finished" || word === "failed" || word === "stopped" || word === "paused") return `${word} · Longtail`;
  return steps > 0 ? `${Math.floor((100 * step) / steps)} % · Longtail` : "preparing · Longtail";
}
