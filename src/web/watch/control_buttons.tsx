// Pause, resume, save, sample and stop for a run on the server: words into its CMD file, heard at its next update. Only where
// the server was started with --control, and with the token that it printed.

import { useSignal } from "@preact/signals";
import { Button, Field } from "../components/basic.tsx";
import { ask } from "../components/feedback.tsx";
import type { CommandWord, ServedRunSource } from "../sources/served.ts";
import { served, token } from "./shown_runs.ts";

const WORDS: readonly [CommandWord, string][] = [
  ["pause", "Pause"],
  ["resume", "Resume"],
  ["sample", "Draw samples"],
  ["save", "Save"],
  ["stop", "Stop"],
];

export function ControlButtons({ source }: { source: ServedRunSource }) {
  const said = useSignal<{ text: string; bad: boolean } | null>(null);
  if (!served.value?.control) return null;
  const send = async (word: CommandWord) => {
    const text = "It is saved, ends at its next update, and can be resumed.";
    if (word === "stop" && !(await ask({ title: `Stop “${source.name}”?`, text, yes: "Stop the run", danger: true })))
      return;
    try {
      await source.command(word, token.value);
      said.value = { text: `“${word}” was written; the run hears it at its next update.`, bad: false };
    } catch (error) {
      said.value = { text: `It was refused: ${(error as Error).message}.`, bad: true };
    }
  };
  return (
    <div class="stack control">
      {token.value === "" ? (
        <Field
          label="Token"
          hint="longtail serve --control printed it at its start; with it the run can be paused and stopped."
        >
          {(attributes) => (
            <input
              {...attributes}
              class="input"
              autocomplete="off"
              onChange={(event) => {
                token.value = event.currentTarget.value.trim();
              }}
            />
          )}
        </Field>
      ) : (
        <div class="row">
          {WORDS.map(([word, text]) => (
            <Button key={word} small kind={word === "stop" ? "danger" : "plain"} onClick={() => void send(word)}>
              {text}
            </Button>
          ))}
        </div>
      )}
      <p class={said.value?.bad ? "field-error" : "field-hint"} role="status">
        {said.value?.text}
      </p>
    </div>
  );
}
