// The list of concepts: what the map shows, for keyboards, screen readers and searching. Tail concepts have a checkbox, head
// ones only a name that opens their card. The filter dims the map too.

import { useMemo } from "preact/hooks";
import type { Catalogue, Concept } from "./catalogue.ts";
import { countsOf, type Filter, isFiltering, MOST_PICKED, NO_FILTER } from "./choice.ts";
import { Sprite } from "./sprite.tsx";
import { changeFilter, filter, focused, hovered, picked, togglePicked, visible } from "./state.ts";

const PARTS: readonly [Filter["part"], string][] = [
  ["all", "All"],
  ["tail", "Tail"],
  ["head", "Head"],
  ["picked", "Picked"],
];

export function ConceptList({ catalogue }: { catalogue: Catalogue }) {
  const list = visible.value;
  return (
    <section class="card lt-list" aria-label="List of concepts">
      <Filters catalogue={catalogue} />
      <p class="lt-count" role="status">
        {list.length} of {catalogue.concepts.length} concepts, {picked.value.size} picked
        {isFiltering(filter.value) && (
          <button
            type="button"
            class="link-button"
            onClick={() => {
              filter.value = NO_FILTER;
            }}
          >
            show all
          </button>
        )}
      </p>
      <ul class="lt-rows">
        {list.map((concept) => (
          <Row
            key={concept.index}
            concept={concept}
            catalogue={catalogue}
            isPicked={picked.value.has(concept.index)}
            isFull={picked.value.size >= MOST_PICKED}
            isFocused={focused.value === concept.index}
          />
        ))}
      </ul>
      {list.length === 0 && <p class="lt-note">No concept fits. Try fewer words, or another category.</p>}
    </section>
  );
}

function Filters({ catalogue }: { catalogue: Catalogue }) {
  const { categories, regions } = useMemo(
    () => ({
      categories: countsOf(catalogue.concepts, "category"),
      regions: countsOf(catalogue.concepts, "region"),
    }),
    [catalogue],
  );
  const { search, category, region, part } = filter.value;
  return (
    <search class="lt-filters">
      <label class="field lt-search">
        <span class="field-label">Search</span>
        <input
          class="input"
          type="search"
          value={search}
          placeholder="name, category or region"
          onInput={(event) => changeFilter({ search: event.currentTarget.value })}
        />
      </label>
      <Choice
        label="Category"
        value={category}
        options={categories}
        onChange={(value) => changeFilter({ category: value })}
      />
      <Choice label="Region" value={region} options={regions} onChange={(value) => changeFilter({ region: value })} />
      <fieldset class="lt-segments">
        <legend>Part</legend>
        {PARTS.map(([value, name]) => (
          <label key={value}>
            <input
              type="radio"
              name="lt-part"
              checked={part === value}
              onChange={() => changeFilter({ part: value })}
            />
            <span class="lt-segment">{name}</span>
          </label>
        ))}
      </fieldset>
    </search>
  );
}

export function Choice(props: {
  label: string;
  value: string;
  options: readonly [name: string, count: number][];
  onChange: (value: string) => void;
  /** What the empty choice is called. */
  none?: string;
}) {
  return (
    <label class="field">
      <span class="field-label">{props.label}</span>
      <select class="input" value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        <option value="">{props.none ?? "any"}</option>
        {props.options.map(([name, count]) => (
          <option key={name} value={name}>
            {name} ({count})
          </option>
        ))}
      </select>
    </label>
  );
}

interface RowProps {
  concept: Concept;
  catalogue: Catalogue;
  isPicked: boolean;
  isFull: boolean;
  isFocused: boolean;
}

function Row({ concept, catalogue, isPicked, isFull, isFocused }: RowProps) {
  const id = `lt-concept-${concept.index}`;
  return (
    <li class={isFocused ? "lt-row is-focused" : "lt-row"}>
      {concept.tail ? (
        <input
          type="checkbox"
          id={id}
          checked={isPicked}
          disabled={isFull && !isPicked}
          aria-label={`Pick ${concept.name}`}
          onChange={() => togglePicked(concept)}
        />
      ) : (
        <i class="lt-key lt-key-head" title="head: not aligned" />
      )}
      <button
        type="button"
        class="lt-row-name"
        onClick={() => {
          hovered.value = null;
          focused.value = concept.index;
        }}
      >
        <Sprite concept={concept} style="noto" size={32} catalogue={catalogue} />
        <b>{concept.name}</b>
        <span class="lt-row-place">{[concept.category, concept.region].filter(Boolean).join(" · ")}</span>
      </button>
    </li>
  );
}
