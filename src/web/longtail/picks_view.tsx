// What is picked for alignment: chips with pictures, ready-made selections, and the two texts that the reward compares for
// each item.

import { useMemo } from "preact/hooks";
import { Notice } from "../components/feedback.tsx";
import { pickProblems } from "./address.ts";
import { Pair } from "./card_view.tsx";
import type { Catalogue } from "./catalogue.ts";
import { countsOf, MOST_PICKED } from "./choice.ts";
import { Choice } from "./list_view.tsx";
import { Sprite } from "./sprite.tsx";
import { focused, hovered, picked, pickedConcepts, pickPreset, togglePicked } from "./state.ts";

export function Picks({ catalogue }: { catalogue: Catalogue }) {
  const tail = useMemo(() => catalogue.concepts.filter((c) => c.tail), [catalogue]);
  const list = pickedConcepts.value;
  return (
    <section class="card lt-picks" aria-label="Picked concepts">
      <header class="card-head">
        <h2>Pick what to lift</h2>
        <span class="card-aside">
          {list.length} of at most {MOST_PICKED}
        </span>
      </header>
      {pickProblems.value.length > 0 && (
        <Notice kind="warn" title="The link was not used">
          <ul class="small plain-list">
            {pickProblems.value.map((problem) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </Notice>
      )}
      <div class="lt-presets">
        <button type="button" class="button" onClick={() => pickPreset({ kind: "experiment" })}>
          The 32 of the experiment
        </button>
        <Choice
          label="By category"
          none="choose"
          value=""
          options={countsOf(tail, "category")}
          onChange={(name) => name && pickPreset({ kind: "category", name })}
        />
        <Choice
          label="By region"
          none="choose"
          value=""
          options={countsOf(tail, "region")}
          onChange={(name) => name && pickPreset({ kind: "region", name })}
        />
        <button type="button" class="button" disabled={list.length === 0} onClick={() => pickPreset(null)}>
          Clear
        </button>
      </div>
      {list.length === 0 ? (
        <p class="lt-note">
          Nothing yet. Tail concepts are the ones with an orange ring; pick them on the map or in the list.
        </p>
      ) : (
        <ul class="lt-chips">
          {list.map((concept) => (
            <li key={concept.index}>
              <button
                type="button"
                class="lt-chip"
                onClick={() => {
                  hovered.value = null;
                  focused.value = concept.index;
                }}
              >
                <Sprite concept={concept} style="noto" size={24} catalogue={catalogue} />
                {concept.name}
              </button>
              <button
                type="button"
                class="lt-chip-out"
                aria-label={`Take out ${concept.name}`}
                onClick={() => togglePicked(concept)}
              >
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
      {list.length > 0 && (
        <details class="lt-texts">
          <summary>The texts that the reward compares</summary>
          <p class="lt-note">
            MIA pairs an item’s caption with and without its attributes. Both begin with a style word, drawn anew for
            each picture; noto stands for it here. The difference of the two scores, and the positive score itself, are
            what the model is moved along.
          </p>
          <ol class="lt-pairs">
            {list.map((concept) => (
              <li key={concept.index}>
                <Pair concept={concept} />
              </li>
            ))}
          </ol>
        </details>
      )}
      <span class="visually-hidden" aria-live="polite">
        {picked.value.size} concepts picked
      </span>
    </section>
  );
}
