// The guard rails: one small curve for each signal that nobody optimises, in the band in which it counts as unharmed, and one
// sentence on what they say together.

import { score } from "../../evaluation/format.ts";
import type { GuardState } from "../../evaluation/guards.ts";
import { type GuardTile, SIGNAL_WORDS } from "./align_view.ts";

const WIDTH = 150;
const HEIGHT = 54;
const MARGIN = 6;

export function Guards({ tiles, guards }: { tiles: readonly GuardTile[]; guards: GuardState }) {
  if (tiles.length === 0) return null;
  const [badge, words] = levelWords(guards);
  return (
    <section class="section" aria-label="Guard rails">
      <header class="row spread">
        <h3>Guard rails</h3>
        <span class={`badge ${badge}`}>{words}</span>
      </header>
      <p class="small quiet">
        Signals that the reward does not optimise. One outside its band is no alarm; two, while the reward rises, for
        three measurements in a row, are a sign that the reward is being gamed.
      </p>
      <ul class="lt-guards">
        {tiles.map((tile) => (
          <Tile key={tile.signal} tile={tile} />
        ))}
      </ul>
    </section>
  );
}

function levelWords({ level, alarm, outside }: GuardState): [string, string] {
  if (level === "alarm") return ["badge-bad", `alarm at update ${alarm?.step ?? 0}`];
  if (level === "watching") return ["badge-warn", "watching"];
  if (outside.length > 0) return ["badge-warn", outside.length === 1 ? "one outside" : `${outside.length} outside`];
  return ["badge-good", "all within their bands"];
}

function Tile({ tile }: { tile: GuardTile }) {
  const { label, means } = SIGNAL_WORDS[tile.signal];
  const { values, band, outside } = tile;
  const last = values.at(-1)!;
  const bandText =
    band.low === undefined
      ? `up to ${score(band.high)}`
      : band.high === undefined
        ? `from ${score(band.low)}`
        : `${score(band.low)} to ${score(band.high)}`;
  return (
    <li class={outside ? "lt-guard is-outside" : "lt-guard"} title={means}>
      <div class="lt-guard-head">
        <span>{label}</span>
        <b>{score(last)}</b>
      </div>
      <Curve tile={tile} label={`${label}: ${score(values[0]!)} at first, ${score(last)} now, band ${bandText}`} />
      <span class="lt-guard-state">
        {outside ? "outside its band " : "band "}
        {bandText}
      </span>
    </li>
  );
}

function Curve({ tile, label }: { tile: GuardTile; label: string }) {
  const { steps, values, band } = tile;
  const all = [
    ...values,
    ...(band.low === undefined ? [] : [band.low]),
    ...(band.high === undefined ? [] : [band.high]),
  ];
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const room = Math.max(most - least, 1e-6) * 0.12;
  const y = (value: number) => MARGIN + ((most + room - value) / (most - least + 2 * room)) * (HEIGHT - 2 * MARGIN);
  const span = Math.max(1, steps.at(-1)! - steps[0]!);
  const x = (step: number) => MARGIN + ((step - steps[0]!) / span) * (WIDTH - 2 * MARGIN);
  const top = band.high === undefined ? 0 : y(band.high);
  const bottom = band.low === undefined ? HEIGHT : y(band.low);
  const line = values
    .map((value, i) => `${i === 0 ? "M" : "L"}${x(steps[i]!).toFixed(1)} ${y(value).toFixed(1)}`)
    .join("");
  return (
    <svg
      class="lt-guard-curve"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={label}
      preserveAspectRatio="none"
    >
      <rect class="lt-band" x="0" y={top} width={WIDTH} height={Math.max(0, bottom - top)} />
      {band.high !== undefined && <path class="lt-band-edge" d={`M0 ${top}H${WIDTH}`} />}
      {band.low !== undefined && <path class="lt-band-edge" d={`M0 ${bottom}H${WIDTH}`} />}
      <path class="lt-line" d={line} />
      <circle class="lt-dot" cx={x(steps.at(-1)!)} cy={y(values.at(-1)!)} r="3" />
    </svg>
  );
}
