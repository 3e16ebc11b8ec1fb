// Which run Compare and Keep are about, where there is more than one.

import { Field } from "../components/basic.tsx";
import { chosenRun, pickedRun, runNames } from "./chosen_run.ts";

export function RunChoice() {
  const names = runNames.value;
  if (names.length < 2) return null;
  return (
    <Field label="Run">
      {(attributes) => (
        <select
          {...attributes}
          class="input"
          value={chosenRun.value?.name ?? ""}
          onChange={({ currentTarget }) => {
            pickedRun.value = currentTarget.value;
          }}
        >
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}
