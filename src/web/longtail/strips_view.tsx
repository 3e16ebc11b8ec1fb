// One strip an item: its real pictures, what the model drew before and draws now from the same noise, and how the held-out
// judge's score moved. While a run goes on, the newest pictures are those of the last measurement.

import { useState } from "preact/hooks";
import { score, signed } from "../../evaluation/format.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import { RunPicture } from "../components/pictures.tsx";
import type { RunSource } from "../run_source.ts";
import type { RunView } from "../run_view.ts";
import { type Strip, type StripOrder, sortedStrips, stripChange, stripsOf } from "./align_view.ts";
import type { Catalogue, Concept } from "./catalogue.ts";
import { Sprite } from "./sprite.tsx";

const ORDERS: readonly [StripOrder, string][] = [
  ["run", "as listed"],
  ["gain", "largest gain first"],
  ["loss", "largest loss first"],
  ["name", "by name"],
];

interface Props {
  view: RunView;
  /** Changes whenever the view has grown. */
  version: string;
  source: RunSource;
  report: ReportData | null;
  /** For real pictures of embedded concepts; null where they are not known. */
  catalogue: Catalogue | null;
}

export function Strips({ view, source, report, catalogue }: Props) {
  const [order, setOrder] = useState<StripOrder>("run");
  const concepts = new Map(catalogue?.concepts.map((c) => [c.name, c]));
  const all = stripsOf(view, report);
  if (all.length === 0) return null;
  const isHead = (strip: Strip) => strip.group === "head" || concepts.get(strip.item)?.tail === false;
  const aligned = sortedStrips(
    all.filter((s) => !isHead(s)),
    order,
  );
  const head = sortedStrips(all.filter(isHead), order);
  const list = (strips: Strip[]) => (
    <ul class="lt-strips">
      {strips.map((strip) => (
        <StripCard
          key={strip.item}
          strip={strip}
          source={source}
          catalogue={catalogue}
          concept={concepts.get(strip.item)}
          real={report?.pictures?.find((p) => p.item === strip.item)?.real[0]?.source}
        />
      ))}
    </ul>
  );
  return (
    <section class="section" aria-label="Pictures by item">
      <header class="row spread">
        <h3>Before and after, item by item</h3>
        <label class="row small">
          <span class="quiet">Order</span>
          <select
            class="input lt-order"
            value={order}
            onChange={(event) => setOrder(event.currentTarget.value as StripOrder)}
          >
            {ORDERS.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
      </header>
      {list(aligned)}
      {head.length > 0 && (
        <details>
          <summary>{head.length} head items, which must not change for the worse</summary>
          {list(head)}
        </details>
      )}
    </section>
  );
}

interface StripProps {
  strip: Strip;
  source: RunSource;
  catalogue: Catalogue | null;
  concept: Concept | undefined;
  real: string | undefined;
}

function StripCard({ strip, source, catalogue, concept, real }: StripProps) {
  const { item, before, latest, step } = strip;
  return (
    <li class="lt-strip">
      <div class="lt-strip-head">
        <b>{item}</b>
        <Change strip={strip} />
      </div>
      <div class="lt-strip-columns">
        <figure>
          <figcaption>real</figcaption>
          {concept && catalogue ? (
            <Sprite concept={concept} style="noto" size="fill" catalogue={catalogue} label={`${item}, real picture`} />
          ) : real?.startsWith("data:image/") ? (
            <img class="pixels lt-picture" src={real} alt={`${item}, real`} width={64} height={64} />
          ) : (
            <span class="lt-sprite lt-sprite-none" />
          )}
        </figure>
        <figure>
          <figcaption>before</figcaption>
          {before.map((sample) => (
            <span class="lt-cell" key={sample.path}>
              <RunPicture source={source} path={sample.path} alt={`${item}, before`} />
            </span>
          ))}
        </figure>
        <figure>
          <figcaption>{step > 0 ? `update ${step}` : "after"}</figcaption>
          {before.map((sample, i) => (
            <span class="lt-cell" key={sample.path}>
              {latest[i] && (
                <RunPicture
                  key={latest[i].path}
                  source={source}
                  path={latest[i].path}
                  alt={`${item}, after ${step} updates`}
                />
              )}
            </span>
          ))}
        </figure>
      </div>
    </li>
  );
}

/** The judge's change with its two values, and an arrow, so that it is not told by colour alone. */
function Change({ strip }: { strip: Strip }) {
  const change = stripChange(strip);
  if (strip.judgeBefore === null) return null;
  if (change === null || strip.step === 0)
    return <span class="lt-change quiet">judge {score(strip.judgeBefore, 2)}</span>;
  const tone = Math.abs(change) < 0.005 ? "quiet" : change > 0 ? "lt-better" : "lt-worse";
  const arrow = tone === "quiet" ? "●" : change > 0 ? "▲" : "▼";
  const title = `judge ${score(strip.judgeBefore)} → ${score(strip.judgeLatest!)}`;
  return (
    <span class={`lt-change ${tone}`} title={title}>
      <span aria-hidden="true">{arrow}</span> {signed(change, 2)}
      <span class="visually-hidden"> {title}</span>
    </span>
  );
}
