// Step 2: one slider from quick to careful, everything else under "More", the buttons that steer the run, and the live panel
// beside them. The form is locked while a run is under way, because it describes that run.

import { useSignal } from "@preact/signals";
import { counted } from "../../evaluation/format.ts";
import { Button, Card, CopyButton, Field, NumberInput, Slider } from "../components/basic.tsx";
import { ErrorNotice, Notice, toastError } from "../components/feedback.tsx";
import { estimate, estimateText } from "../estimates.ts";
import { effective, FIELDS, freeName, PACES, trainCommand, trainToml } from "../settings.ts";
import { keepStorage } from "../storage_panel.tsx";
import {
  activeRun,
  changeSettings,
  linkProblems,
  machine,
  refreshStorage,
  settings,
  startRun,
  wireError,
} from "../store.ts";
import { RunControls } from "./controls.tsx";
import { LivePanel } from "./live_panel.tsx";
import { ResumeOffer } from "./resume.tsx";
import { knownSpeed } from "./speeds.ts";
import { startBlocked } from "./start_blocked.ts";

export function TrainCard() {
  const run = activeRun.value?.command === "train" ? activeRun.value : null;
  const active = run?.active ?? false;
  return (
    <Card number={2} title="Train" aside={run ? `Run “${run.name}”` : undefined}>
      <div class="train-columns">
        <div class="train-form">
          <LinkProblems />
          <ResumeOffer command="train" />
          <Form locked={active} />
          {active ? <RunControls run={run!} /> : <Start />}
          {run?.status.value === "failed" && run.error.value && <ErrorNotice error={run.error.value} />}
        </div>
        <LivePanel run={run} />
      </div>
    </Card>
  );
}

function LinkProblems() {
  const problems = linkProblems.value;
  if (problems.length === 0) return null;
  const close = () => {
    linkProblems.value = [];
    // The address follows the form.
    changeSettings({});
  };
  const use = (
    <Button small onClick={close}>
      Use the defaults
    </Button>
  );
  return (
    <Notice kind="warn" title="The link was not used" actions={use}>
      <ul class="small plain-list">
        {problems.map((problem) => (
          <li key={problem}>{problem}</li>
        ))}
      </ul>
    </Notice>
  );
}

function Form({ locked }: { locked: boolean }) {
  const form = settings.value;
  const values = effective(form, machine.value);
  const pace = PACES[form.pace] ?? PACES[2];
  const speed = knownSpeed();
  const time = estimateText(estimate(values, machine.value, speed));
  return (
    <>
      <div class="stack">
        <Slider
          label="How thorough"
          text={`${form.updates === null ? `${pace}, ` : ""}${counted(values.updates, "update")}`}
          value={form.pace}
          min={0}
          max={4}
          ends={["quick", "careful"]}
          disabled={locked}
          onValue={(value) => changeSettings({ pace: value, updates: null })}
        />
        <p class="field-hint">Takes {time}.</p>
      </div>
      <details>
        <summary>More</summary>
        <div class="more-grid">
          <NumberInput
            label="Rank"
            hint="width of the LoRA"
            value={values.rank}
            check={FIELDS.rank.check}
            disabled={locked}
            onValue={(rank) => changeSettings({ rank })}
          />
          <NumberInput
            label="Learning rate"
            hint="1e-3 suits this model"
            value={values.lr}
            check={FIELDS.lr.check}
            disabled={locked}
            onValue={(lr) => changeSettings({ lr })}
          />
          <NumberInput
            label="Updates"
            hint="set by the slider"
            value={values.updates}
            check={FIELDS.updates.check}
            disabled={locked}
            onValue={(updates) => changeSettings({ updates })}
          />
          <NumberInput
            label="Batch"
            hint="pictures an update"
            value={values.batch}
            check={FIELDS.batch.check}
            disabled={locked}
            onValue={(batch) => changeSettings({ batch })}
          />
          <NumberInput
            label="Seed"
            hint="same seed, same run"
            value={values.seed}
            check={FIELDS.seed.check}
            disabled={locked}
            onValue={(seed) => changeSettings({ seed })}
          />
          <Field label="Resolution" hint="the small model's own">
            {(attributes) => <input {...attributes} class="input" value="64 × 64" disabled />}
          </Field>
          <div class="wide">
            <Field label="Name of the run" hint="empty: after the pictures" error={FIELDS.name.check(form.name)}>
              {(attributes) => (
                <input
                  {...attributes}
                  class="input"
                  autocomplete="off"
                  spellcheck={false}
                  disabled={locked}
                  value={form.name}
                  onInput={(event) => changeSettings({ name: event.currentTarget.value.trim() })}
                />
              )}
            </Field>
          </div>
          <div class="wide row">
            <CopyButton text={() => location.href}>Copy link to these settings</CopyButton>
            <CopyButton text={() => trainCommand(form, machine.value)}>Copy as a command</CopyButton>
          </div>
        </div>
      </details>
    </>
  );
}

function Start() {
  const starting = useSignal(false);
  const reason = starting.value ? "it is starting" : startBlocked.value;
  const start = async () => {
    starting.value = true;
    // Within the click, because browsers agree to it only then.
    void keepStorage();
    try {
      const known = (await refreshStorage())?.runs ?? [];
      const name = freeName(
        settings.value,
        known.map((run) => run.name),
      );
      const toml = trainToml(settings.value, machine.value);
      await startRun({ command: "train", toml, name, resume: false });
    } catch (error) {
      toastError(wireError(error));
    }
    starting.value = false;
  };
  return (
    <div class="stack">
      <div class="controls">
        <Button kind="primary" disabledReason={reason} onClick={() => void start()}>
          {starting.value ? "Starting …" : "Start training"}
        </Button>
      </div>
      {reason && !starting.value && <p class="field-hint">To start: {reason}.</p>}
    </div>
  );
}
