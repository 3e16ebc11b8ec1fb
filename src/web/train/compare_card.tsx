// "Compare", step 3 of the Train mode: any prompt before and after training from the same noise, the LoRA's strength from the
// opposite to an exaggeration, and the run's samples as it went on. Where there is no LoRA yet, the model as it is.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { counted } from "../../evaluation/format.ts";
import { BeforeAfter } from "../compare/before_after.tsx";
import { type ChosenRun, chosenRun, samplePrompts } from "../compare/chosen_run.ts";
import {
  after,
  before,
  changeForm,
  clearDrawn,
  drawError,
  drawing,
  drawNow,
  drawn,
  drawStrength,
  form,
  PREVIEW_STEPS,
  STRENGTH,
} from "../compare/drawing.ts";
import { RunChoice } from "../compare/run_choice.tsx";
import { newPrompts, promptsOf } from "../compare/suggestions.ts";
import { TimeLapse } from "../compare/time_lapse.tsx";
import { Button, Check, Field, NumberInput, Slider } from "../components/basic.tsx";
import { ErrorNotice } from "../components/feedback.tsx";
import { Drawn } from "../components/pictures.tsx";
import { isOwn, ownCaptions } from "../pictures/own_set.ts";
import { loadVocabulary, unknownWords, vocabulary } from "../pictures/vocabulary.ts";
import { activeRun, forming, machine, settings } from "../store.ts";
import "../styles/compare.css";
import { Fetching, fetching } from "./downloads.tsx";
import { ResumeButton } from "./resume.tsx";

/** Suggestions of each kind. */
const CHIPS = 4;
const check = (low: number, high: number) => (value: unknown) =>
  Number.isInteger(value) && (value as number) >= low && (value as number) <= high
    ? null
    : `a whole number from ${low} to ${high}`;
const [SEED, STEPS, COUNT] = [check(0, 2 ** 31 - 1), check(1, 50), check(1, 6)];

export function CompareCard() {
  const run = chosenRun.value;
  const name = run?.name ?? null;
  useEffect(() => {
    clearDrawn();
    changeForm({ steps: machine.peek().sampleSteps });
    void loadVocabulary();
  }, [name]);
  return (
    <div class="step-body">
      <RunChoice />
      <DrawForm run={run} />
      <Result run={run} />
      {run && <TimeLapse run={run} />}
    </div>
  );
}

function DrawForm({ run }: { run: ChosenRun | null }) {
  const { prompt, seed, locked, steps, count } = form.value;
  const trained = run ? samplePrompts(run.view) : isOwn.value ? ownCaptions.value : promptsOf(settings.value.set);
  const suggestion = trained[0] ?? "";
  const suggested = useRef("");
  useEffect(() => {
    // What somebody wrote or chose stays.
    if (suggestion === "" || form.peek().prompt !== suggested.current) return;
    suggested.current = suggestion;
    changeForm({ prompt: suggestion });
  }, [suggestion]);
  const known = vocabulary.value;
  const unread = known ? unknownWords(prompt, known.words) : [];
  const list = useId();
  const [config, setConfig] = useState("");
  useEffect(() => {
    let gone = false;
    setConfig("");
    void run?.source.text("config.toml").then((text) => !gone && setConfig(text ?? ""));
    return () => {
      gone = true;
    };
  }, [run?.name]);
  const fresh = run && known ? newPrompts(trained, config, known.items, CHIPS) : [];
  const weights = useWeights(run);
  const ready = weights !== null;
  const working = useWorking();
  const numbers = [SEED(seed), STEPS(steps), COUNT(count)].some((wrong) => wrong !== null);
  const empty = prompt.trim() === "" ? "write a prompt first" : numbers ? "correct the number that is marked" : null;
  const problem = !ready && working ? `“${working}” is training: pause it, or wait until it has ended` : empty;
  const draw = () => drawNow(ready && run ? run.name : null);
  const what = weights === "whole" ? "before and after" : ready ? "before and so far" : "the model as it is";
  return (
    <form
      class="stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) draw();
      }}
    >
      <Field
        label="Prompt"
        {...(unread.length > 0
          ? { error: `The small model does not read: ${unread.join(", ")}` }
          : { hint: `The small model reads ${known?.words.size ?? "some hundred"} words, those of emoji names.` })}
      >
        {(attributes) => (
          <input
            {...attributes}
            aria-invalid={false}
            class="input"
            list={list}
            autocomplete="off"
            spellcheck={false}
            maxLength={200}
            value={prompt}
            onInput={({ currentTarget }) => changeForm({ prompt: currentTarget.value })}
          />
        )}
      </Field>
      <datalist id={list}>
        {[...trained, ...(known?.items ?? []).map((item) => `${styleOf(trained)}icon of ${item}`)].map((text) => (
          <option key={text} value={text} />
        ))}
      </datalist>
      <Chips title={run ? "Trained on" : "In your pictures"} prompts={trained.slice(0, CHIPS)} />
      <Chips title="New to the LoRA" prompts={fresh} />
      <div class="compare-numbers">
        <NumberInput label="Seed" value={seed} check={SEED} onValue={(value) => changeForm({ seed: value })} />
        <NumberInput label="Steps" value={steps} check={STEPS} onValue={(value) => changeForm({ steps: value })} />
        <NumberInput label="Pictures" value={count} check={COUNT} onValue={(value) => changeForm({ count: value })} />
      </div>
      <div class="row spread">
        <Check label="Keep the seed" checked={locked} onChange={(value) => changeForm({ locked: value })} />
        <Button kind="primary" disabledReason={problem} onClick={draw}>
          {drawing.value ? "Drawing …" : locked || !drawn.value ? `Draw ${what}` : "Draw with another seed"}
        </Button>
      </div>
      {weights !== "whole" && <Unfinished run={run} ready={ready} />}
    </form>
  );
}

/** Why there is no LoRA yet, and what is drawn or shows it meanwhile. */
function Unfinished({ run, ready }: { run: ChosenRun | null; ready: boolean }) {
  if (!run)
    return (
      <p class="field-hint">
        No run yet: this is what the model draws before training. After a run the same prompt and noise are drawn with
        what it learnt.
      </p>
    );
  const samples = run.view.samples.size > 1 ? "; its newest samples, below, show what it has learnt so far" : "";
  if (ready && run.paused)
    return (
      <p class="field-hint">
        The run is paused at update {run.view.step}: this draws with what it has learnt so far. The LoRA is written when
        the run has ended.
      </p>
    );
  if (run.training || run.paused) return <p class="field-hint">The LoRA is written when the run has ended{samples}.</p>;
  return (
    <div class="row spread">
      <p class="field-hint grow">
        {ready
          ? "This run did not reach its end: this draws with its newest checkpoint."
          : `This run did not reach its end, so it has no LoRA yet${samples}.`}
      </p>
      {!activeRun.value?.active && <ResumeButton run={{ name: run.name, command: "train" }} text="Resume this run" />}
    </div>
  );
}

/** Name of the run of this tab that computes now, which drawing without need would slow down; null where none does. */
function useWorking(): string | null {
  const run = activeRun.value;
  return run?.active && run.status.value !== "paused" ? run.name : null;
}

/** What there is of a run to draw with: its LoRA, or what it has learnt so far where it is paused or has ended early. */
function useWeights(run: ChosenRun | null): "whole" | "so far" | null {
  const [ready, setReady] = useState(false);
  useEffect(() => {
    let gone = false;
    void run?.source.blob(`${run.name}.safetensors`).then((blob) => !gone && setReady(blob !== null));
    return () => {
      gone = true;
      setReady(false);
    };
  }, [run?.name, run?.training, run?.finished]);
  if (ready) return "whole";
  if (!run || run.training) return null;
  const learnt = run.paused ? run.view.step > 0 : run.view.notes.some(({ kind }) => kind === "checkpoint");
  return learnt ? "so far" : null;
}

/** The style word of the run's captions, `noto `, or nothing. */
const styleOf = (prompts: readonly string[]) => /^(\w+ )icon of /.exec(prompts[0] ?? "")?.[1] ?? "";

function Chips({ title, prompts }: { title: string; prompts: readonly string[] }) {
  if (prompts.length === 0) return null;
  return (
    <div class="row chips">
      <span class="small quiet">{title}</span>
      {prompts.map((prompt) => (
        <Button
          key={prompt}
          small
          label={prompt}
          title={prompt}
          pressed={form.value.prompt === prompt}
          onClick={() => changeForm({ prompt })}
        >
          {prompt.replace(/^.*\bicon of /, "")}
        </Button>
      ))}
    </div>
  );
}

function Result({ run }: { run: ChosenRun | null }) {
  const [split, setSplit] = useState(50);
  const { strength } = form.value;
  const weights = useWeights(run);
  const shown = drawn.value;
  const updates = after.value?.[0]?.step ?? null;
  const when = updates === null ? "after training" : `after ${counted(updates, "update")}`;
  const coming = drawing.value ? fetching() : null;
  const phase = drawing.value;
  const formingAt = (n: number) => (phase ? forming.value.find(({ index }) => index === n) : undefined);
  const shaping = phase === "before" && forming.value.length > 0;
  const prompt = shown?.prompt ?? form.value.prompt;
  if (!before.value && !drawError.value && !drawing.value) return null;
  return (
    <div class="stack" aria-busy={drawing.value !== null}>
      {coming && <Fetching {...coming} />}
      {drawing.value && !coming && !before.value && !shaping && (
        <p class="quiet small" role="status">
          For the first picture the GPU is opened and kernels are compiled; the next ones come sooner.
        </p>
      )}
      {drawError.value && <ErrorNotice error={drawError.value} />}
      {shaping && (
        <div class="pairs">
          {Array.from({ length: form.value.count }, (_, n) => (
            <div class="pair" key={n}>
              {formingAt(n) && <Drawn picture={formingAt(n)!} label={`${form.value.prompt}, taking shape`} />}
            </div>
          ))}
        </div>
      )}
      {before.value && !shaping && (
        <>
          <div class="pairs">
            {before.value.map((picture, n) => (
              <BeforeAfter
                key={n}
                number={n + 1}
                before={picture}
                after={(phase === "after" ? formingAt(n) : null) ?? after.value?.[n] ?? null}
                when={when}
                prompt={prompt}
                split={split}
                onSplit={setSplit}
              />
            ))}
          </div>
          <p class="field-hint" role="status">
            {shown?.preview
              ? `A preview of ${Math.min(shown.steps, PREVIEW_STEPS)} steps; let go of the slider for all ${shown.steps}.`
              : after.value
                ? `Move the line: the same noise before training and ${updates === null ? "after it" : when}.`
                : drawing.value
                  ? "Before training; the other half is being drawn."
                  : "The model as it is, before training."}
          </p>
        </>
      )}
      {run && weights && shown && shown.run === run.name && (
        <div
          // The range input's own "change" comes when it is let go, by pointer or key.
          onChangeCapture={() => drawStrength(run.name, form.value.strength, false)}
        >
          <Slider
            label="Strength of the LoRA"
            text={strength.toFixed(2)}
            ends={["−0.5 opposite", "1.5 exaggerated"]}
            {...STRENGTH}
            value={strength}
            onValue={(value) => drawStrength(run.name, value, true)}
          />
        </div>
      )}
    </div>
  );
}
