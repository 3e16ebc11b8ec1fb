// The card of one concept: what it is, how rare it was in pretraining, its real pictures in every style with their credits,
// the two texts that MIA compares, and its neighbours on the map.

import { STYLES } from "../../data/embedded.ts";
import { type Catalogue, type Concept, pairTexts, rarityText } from "./catalogue.ts";
import { MOST_PICKED } from "./choice.ts";
import { Sprite } from "./sprite.tsx";
import { focused, hovered, picked, togglePicked } from "./state.ts";

/** Five of them fit beside one another in the card. */
const PICTURE = 54;

export function ConceptCard({ catalogue }: { catalogue: Catalogue }) {
  const index = hovered.value ?? focused.value;
  const concept = index === null ? undefined : catalogue.concepts[index];
  if (!concept) return <Invitation catalogue={catalogue} />;
  const place = [concept.category, concept.region].filter(Boolean).join(" · ");
  const styles = STYLES.filter((style) => concept.cells.has(style));
  return (
    <section class="card lt-concept" aria-label={`Concept: ${concept.name}`}>
      <header>
        <h3>{concept.name}</h3>
        <p class="lt-place">
          <span class={concept.tail ? "lt-part lt-part-tail" : "lt-part lt-part-head"}>
            {concept.tail ? "tail" : "head"}
          </span>
          {place}
        </p>
      </header>
      <ul class="lt-styles">
        {styles.map((style) => (
          <li key={style}>
            <Sprite
              concept={concept}
              style={style}
              size={PICTURE}
              catalogue={catalogue}
              label={`${concept.name}, real picture, style ${style}`}
            />
            <span>{style}</span>
          </li>
        ))}
      </ul>
      <p class="lt-note">
        In pretraining it was drawn {rarityText(concept.frequency)}.
        {concept.tail ? "" : " Head concepts are not aligned: they show whether an alignment does harm."}
      </p>
      {concept.tail && <Pair concept={concept} />}
      {concept.tail && <PickButton concept={concept} />}
      <Neighbours concept={concept} catalogue={catalogue} />
      <Credits catalogue={catalogue} concept={concept} />
    </section>
  );
}

function Invitation({ catalogue }: { catalogue: Catalogue }) {
  const tail = catalogue.concepts.filter((c) => c.tail).length;
  return (
    <section class="card lt-concept" aria-label="Concept">
      <h3>Point at a concept</h3>
      <p class="lt-note">
        Concepts whose pictures look alike to the judge lie near each other. Of ten nearest neighbours the map keeps{" "}
        {(10 * catalogue.kept).toFixed(1)} on average: trust what is close, not what is far.
      </p>
      <p class="lt-note">
        Click one to keep its card, click it again to pick it. {tail} concepts are tail; up to {MOST_PICKED} can be
        aligned at once.
      </p>
      <p class="lt-note">Drag turns the map; the wheel zooms once the map was clicked.</p>
    </section>
  );
}

export function PickButton({ concept }: { concept: Concept }) {
  const isPicked = picked.value.has(concept.index);
  const full = !isPicked && picked.value.size >= MOST_PICKED;
  return (
    <button
      type="button"
      class={isPicked ? "button" : "button button-primary"}
      disabled={full}
      onClick={() => togglePicked(concept)}
    >
      {isPicked ? "Take out" : full ? `${MOST_PICKED} are picked already` : "Pick for alignment"}
    </button>
  );
}

/** The texts that the reward compares, the attributes that tell them apart marked. */
export function Pair({ concept }: { concept: Concept }) {
  const { positive, negative } = pairTexts(concept, "noto");
  const added = positive.slice(negative.length);
  return (
    <dl class="lt-pair">
      <dt>Positive</dt>
      <dd>
        {negative}
        <mark>{added}</mark>
      </dd>
      <dt>Negative</dt>
      <dd>{negative}</dd>
    </dl>
  );
}

function Neighbours({ concept, catalogue }: { concept: Concept; catalogue: Catalogue }) {
  if (concept.neighbours.length === 0) return null;
  return (
    <div class="lt-neighbours">
      <h4>Looks most like</h4>
      <ul>
        {concept.neighbours.map((index) => {
          const other = catalogue.concepts[index]!;
          return (
            <li key={index}>
              <button
                type="button"
                title={other.name}
                onClick={() => {
                  hovered.value = null;
                  focused.value = index;
                }}
              >
                <Sprite concept={other} style="noto" size={32} catalogue={catalogue} label={other.name} />
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function Credits({ catalogue, concept }: { catalogue: Catalogue; concept: Concept }) {
  const lines = new Map<string, string[]>();
  for (const style of concept.cells.keys()) {
    const line = catalogue.attributions.get(style) ?? "";
    lines.set(line, [...(lines.get(line) ?? []), style]);
  }
  return (
    <details class="lt-credits">
      <summary>Credits of the pictures</summary>
      <ul>
        {[...lines].map(([line, styles]) => (
          <li key={line}>
            {styles.join(", ")}: {line}
          </li>
        ))}
      </ul>
    </details>
  );
}
