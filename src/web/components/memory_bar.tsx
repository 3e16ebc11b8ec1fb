// Device memory by category as one stacked bar with its key and the sum.

import { bytes } from "../../evaluation/format.ts";

/** Categories in the order in which they are stacked; others come after them. */
const ORDER = ["weights", "adapter", "gradients", "optimizer", "data", "activations"];
const COLOURS = ["series-1", "series-3", "series-4", "series-2", "series-5", "series-6", "series-8"];
const OTHER = "var(--line-strong)";

/** Parts below this share are shown together. */
const LEAST_SHARE = 0.015;

export interface MemoryPart {
  name: string;
  bytes: number;
}

/** Sorted for the bar, small ones joined as "other". Pure. */
export function memoryParts(categories: Readonly<Record<string, number>>): MemoryPart[] {
  const total = Object.values(categories).reduce((sum, n) => sum + n, 0);
  const rank = (name: string) => (ORDER.indexOf(name) + ORDER.length + 1) % (ORDER.length + 1);
  const known = Object.entries(categories).map(([name, n]) => ({
    name: name.replace(/ and workspace.*$/, ""),
    bytes: n,
  }));
  const large = known.filter((part) => part.bytes >= LEAST_SHARE * total && part.bytes > 0);
  const rest = total - large.reduce((sum, part) => sum + part.bytes, 0);
  large.sort((a, b) => rank(a.name) - rank(b.name));
  return rest > 0 ? [...large, { name: "other", bytes: rest }] : large;
}

export function MemoryBar({ categories }: { categories: Readonly<Record<string, number>> }) {
  const parts = memoryParts(categories);
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  const colour = (i: number) => (parts[i]!.name === "other" ? OTHER : `var(--${COLOURS[i % COLOURS.length]})`);
  return (
    <div class="memory">
      <div class="row spread small">
        <h3>Device memory</h3>
        <span>{bytes(total)}</span>
      </div>
      <div class="memory-bar" aria-hidden="true">
        {parts.map(({ name, bytes: size }, i) => (
          <div
            key={name}
            class="memory-part"
            title={`${name}: ${bytes(size)}`}
            style={{ flex: `${size} 0 0`, background: colour(i) }}
          />
        ))}
      </div>
      <ul class="memory-keys plain-list">
        {parts.map(({ name, bytes: size }, i) => (
          <li key={name} class="memory-key" style={{ "--part": colour(i) }}>
            {name} {bytes(size)}
          </li>
        ))}
      </ul>
    </div>
  );
}
