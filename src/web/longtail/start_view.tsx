// Starting an alignment: how long, which weights, which pair of texts; what it will cost on this machine; and the run's own
// buttons while it goes on.

import { useEffect, useState } from "preact/hooks";
import { bytes } from "../../evaluation/format.ts";
import { ErrorNotice } from "../components/feedback.tsx";
import type { PlanFacts, WireError } from "../protocol.ts";
import { recall } from "../small_state.ts";
import { keepStorage } from "../storage_panel.tsx";
import { activeRun, device, engine, machine, refreshStorage, startRun, verdict, wireError } from "../store.ts";
import { type Cost, costOf, costText } from "./cost.ts";
import {
  ALIGN_PRESETS,
  type AlignForm,
  alignCommand,
  alignToml,
  draws,
  freeName,
  LENGTH_NAMES,
  startProblem,
  updatesOf,
} from "./request.ts";
import { flopsPerUpdate, form, pickedConcepts } from "./state.ts";

const change = (part: Partial<AlignForm>) => {
  form.value = { ...form.value, ...part };
};

/** What the worker says to the request, asked anew a moment after the last change. */
function usePlan(toml: string, isReady: boolean): PlanFacts | null {
  const [plan, setPlan] = useState<PlanFacts | null>(null);
  useEffect(() => {
    if (!isReady) return setPlan(null);
    let gone = false;
    const timer = setTimeout(async () => {
      try {
        const facts = await (await engine()).plan({ command: "align", toml, name: "plan", resume: false });
        if (!gone) setPlan(facts);
      } catch {
        // Starting tells the reason; a plan is only a help.
        if (!gone) setPlan(null);
      }
    }, 400);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [toml, isReady]);
  return plan;
}

/** Arithmetic a second of an earlier run on this adapter. */
function useSpeed(): number | undefined {
  const [speed, setSpeed] = useState<number | undefined>();
  const name = device.value?.name ?? verdict.value?.adapter;
  useEffect(() => {
    void recall("speeds").then((speeds) => setSpeed(name ? speeds?.[name] : undefined));
  }, [name]);
  return speed;
}

export function StartCard() {
  const preset = ALIGN_PRESETS[machine.value.id];
  const items = pickedConcepts.value.map((c) => c.name);
  const settings = form.value;
  const updates = updatesOf(settings, preset);
  const toml = alignToml(settings, preset, items);
  const problem = startProblem(settings, items.length);
  const run = activeRun.value;
  const busy = run?.active ?? false;
  const plan = usePlan(toml, problem === null && !busy);
  const speed = useSpeed();
  const [error, setError] = useState<WireError | null>(null);
  const [starting, setStarting] = useState(false);
  const cost: Cost | null = plan ? costOf(plan, preset, items.length, speed) : null;
  const cannot = verdict.value?.level === "none";

  const start = async () => {
    setError(null);
    setStarting(true);
    // Within the click, because browsers agree to it only then.
    void keepStorage();
    try {
      const taken = ((await refreshStorage())?.runs ?? []).map((one) => one.name);
      flopsPerUpdate.value = plan?.flopsPerUpdate ?? null;
      await startRun({ command: "align", toml, name: freeName(settings, items, taken), resume: false });
    } catch (caught) {
      setError(wireError(caught));
    } finally {
      setStarting(false);
    }
  };

  return (
    <section class="card lt-start" aria-labelledby="lt-start-title">
      <header class="card-head">
        <h2 id="lt-start-title">Align</h2>
        <span class="card-aside">SRPO, no picture of the picked items is shown to the model</span>
      </header>
      <div class="lt-form">
        <Segments
          legend="Length"
          name="lt-length"
          value={String(settings.length ?? preset.usual)}
          options={LENGTH_NAMES.map((name, i) => [String(i), `${name}, ${preset.updates[i]} updates`])}
          onChange={(value) => change({ length: Number(value) as 0 | 1 | 2 })}
        />
        <Segments
          legend="What is trained"
          name="lt-weights"
          value={settings.weights}
          options={[
            ["full", "every weight"],
            ["lora", "a LoRA"],
          ]}
          onChange={(value) => change({ weights: value as AlignForm["weights"] })}
        />
        <Segments
          legend="Texts compared"
          name="lt-pair"
          value={settings.pair}
          options={[
            ["mia", "MIA pair"],
            ["control-words", "control words"],
            ["none", "caption alone"],
          ]}
          onChange={(value) => change({ pair: value as AlignForm["pair"] })}
        />
        <label class="field lt-narrow">
          <span class="field-label">Seed</span>
          <input
            class="input"
            type="number"
            min={0}
            step={1}
            value={settings.seed}
            onChange={(event) => change({ seed: Number(event.currentTarget.value) })}
          />
        </label>
        <label class="field lt-narrow">
          <span class="field-label">Name</span>
          <input
            class="input"
            value={settings.name}
            placeholder={freeName(settings, items, [])}
            onInput={(event) => change({ name: event.currentTarget.value })}
          />
        </label>
      </div>
      <Honesty items={items.length} updates={updates} />
      <div class="controls">
        <button
          type="button"
          class="button button-primary"
          disabled={problem !== null || busy || starting || cannot}
          aria-describedby="lt-start-why"
          onClick={start}
        >
          {starting ? "Starting" : `Align ${items.length === 1 ? "1 concept" : `${items.length} concepts`}`}
        </button>
      </div>
      <p id="lt-start-why" class="small quiet">
        {cannot
          ? "This browser cannot train; the Train mode says why."
          : busy
            ? `${run!.name} is under way. One run at a time.`
            : (problem ?? (cost ? costText(cost) : "What it needs is counted when the engine is ready."))}
      </p>
      {plan && plan.warnings.length > 0 && problem === null && (
        <ul class="small quiet">
          {plan.warnings.map((one) => (
            <li key={one.code}>
              {one.text} <span class="notice-code">{one.code}</span>
            </li>
          ))}
        </ul>
      )}
      {plan && problem === null && (
        <p class="small quiet">
          Device memory: {bytes(plan.total)}. Trained: {(plan.trainedParameters / 1e6).toFixed(1)} million of{" "}
          {(plan.parameters / 1e6).toFixed(1)} million weights.
        </p>
      )}
      {error && <ErrorNotice error={error} />}
      {problem === null && (
        <details>
          <summary>The same run without a page</summary>
          <pre class="code-block">{alignCommand(settings, preset, items, settings.name)}</pre>
        </details>
      )}
    </section>
  );
}

/** What may be expected from so many updates of so many items, said before and not after. */
function Honesty({ items, updates }: { items: number; updates: number }) {
  const preset = ALIGN_PRESETS[machine.value.id];
  if (items === 0) return null;
  const each = draws(updates, preset, items);
  const words =
    preset.id === "software"
      ? `No GPU was found, so this machine's processor does the work: ${updates} updates of ${preset.batch} prompts. That shows how it works; it is far too little for a change that the judge could tell from chance.`
      : each < 3
        ? "Too few updates for so many items: pick fewer, or take a longer run."
        : updates <= 40
          ? "Expect the judge's score to rise a little, and shapes to stay as they are."
          : "In the reference runs the judge preferred the pictures after such a run clearly; several items stay unrecognisable all the same.";
  return (
    <p class="small">
      Each item is drawn about {each < 10 ? each.toFixed(1) : Math.round(each)} times. {words}
    </p>
  );
}

export function Segments(props: {
  legend: string;
  name: string;
  value: string;
  options: readonly (readonly [value: string, name: string])[];
  onChange: (value: string) => void;
}) {
  return (
    <fieldset class="lt-segments">
      <legend class="field-label">{props.legend}</legend>
      {props.options.map(([value, name]) => (
        <label key={value}>
          <input
            type="radio"
            name={props.name}
            checked={props.value === value}
            onChange={() => props.onChange(value)}
          />
          <span class="lt-segment">{name}</span>
        </label>
      ))}
    </fieldset>
  );
}
