// "Compare", step 3 of the Train mode: any prompt before and after training from the same noise, the LoRA's strength from the
// opposite to an exaggeration, and the run's samples as it went on.

import { useEffect, useId, useState } from "preact/hooks";
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
import { newPrompts } from "../compare/suggestions.ts";
import { TimeLapse } from "../compare/time_lapse.tsx";
import { Button, Check, Field, NumberInput, Slider } from "../components/basic.tsx";
import { ErrorNotice } from "../components/feedback.tsx";
import { loadVocabulary, unknownWords, vocabulary } from "../pictures/vocabulary.ts";
import { machine } from "../store.ts";
import "../styles/compare.css";

/** Suggestions of each kind. */
const CHIPS = 4;
const check = (low: number, high: number) => (value: unknown) =>
  Number.isInteger(value) && (value as number) >= low && (value as number) <= high
    ? null
    : `a whole number from ${low} to ${high}`;

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
      {run === null ? (
        <p class="quiet">
          After a run is started, this card draws any prompt before and after training, from the same noise.
        </p>
      ) : (
        <>
          <RunChoice />
          <DrawForm run={run} />
          <Result run={run} />
          <TimeLapse run={run} />
        </>
      )}
    </div>
  );
}

function DrawForm({ run }: { run: ChosenRun }) {
  const { prompt, seed, locked, steps, count } = form.value;
  const trained = samplePrompts(run.view);
  const suggestion = trained[0] ?? "";
  useEffect(() => {
    if (form.peek().prompt === "" && suggestion !== "") changeForm({ prompt: suggestion });
  }, [suggestion]);
  const known = vocabulary.value;
  const unread = known ? unknownWords(prompt, known.words) : [];
  const list = useId();
  const [config, setConfig] = useState("");
  useEffect(() => {
    let gone = false;
    void run.source.text("config.toml").then((text) => !gone && setConfig(text ?? ""));
    return () => {
      gone = true;
    };
  }, [run.name]);
  const fresh = known ? newPrompts(trained, config, known.items, CHIPS) : [];
  const ready = useWeights(run);
  const empty = prompt.trim() === "" ? "write a prompt first" : null;
  const problem = ready ? empty : "the LoRA is written when the run has ended";
  return (
    <form
      class="stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) drawNow(run.name);
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
      <Chips title="Trained on" prompts={trained.slice(0, CHIPS)} />
      <Chips title="New to the LoRA" prompts={fresh} />
      <div class="compare-numbers">
        <NumberInput
          label="Seed"
          value={seed}
          check={check(0, 2 ** 31 - 1)}
          onValue={(value) => changeForm({ seed: value })}
        />
        <NumberInput
          label="Steps"
          value={steps}
          check={check(1, 50)}
          onValue={(value) => changeForm({ steps: value })}
        />
        <NumberInput
          label="Pictures"
          value={count}
          check={check(1, 6)}
          onValue={(value) => changeForm({ count: value })}
        />
      </div>
      <div class="row spread">
        <Check label="Keep the seed" checked={locked} onChange={(value) => changeForm({ locked: value })} />
        <Button kind="primary" disabledReason={problem} onClick={() => drawNow(run.name)}>
          {drawing.value ? "Drawing …" : locked || !drawn.value ? "Draw before and after" : "Draw with another seed"}
        </Button>
      </div>
      {!ready && (
        <p class="field-hint">
          {run.training || run.paused
            ? "The LoRA is written when the run has ended; until then the samples below show what it learnt."
            : "This run did not reach its end, so it has no LoRA yet. Resume it, or look at its samples."}
        </p>
      )}
    </form>
  );
}

/** Whether the run's LoRA can be read. */
function useWeights(run: ChosenRun): boolean {
  const [ready, setReady] = useState(false);
  useEffect(() => {
    let gone = false;
    void run.source.blob(`${run.name}.safetensors`).then((blob) => !gone && setReady(blob !== null));
    return () => {
      gone = true;
      setReady(false);
    };
  }, [run.name, run.training, run.finished]);
  return ready;
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

function Result({ run }: { run: ChosenRun }) {
  const [split, setSplit] = useState(50);
  const { strength } = form.value;
  const shown = drawn.value;
  if (!before.value && !drawError.value) return null;
  return (
    <div class="stack" aria-busy={drawing.value !== null}>
      {drawError.value && <ErrorNotice error={drawError.value} />}
      {before.value && (
        <>
          <div class="pairs">
            {before.value.map((picture, n) => (
              <BeforeAfter
                key={n}
                number={n + 1}
                before={picture}
                after={after.value?.[n] ?? null}
                prompt={shown?.prompt ?? form.value.prompt}
                split={split}
                onSplit={setSplit}
              />
            ))}
          </div>
          <p class="field-hint" role="status">
            {shown?.preview
              ? `A preview of ${Math.min(shown.steps, PREVIEW_STEPS)} steps; let go of the slider for all ${shown.steps}.`
              : "Move the line: the same noise before training and after it."}
          </p>
        </>
      )}
      {shown && (
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
