// The nested dictionaries and lists of a torch.save file as flat names, `optimizer.state.0.exp_avg`. The tree comes from a
// stranger and may share branches or contain itself: every container is visited once to count its tensors and its depth,
// and names are made only where the counts allow it.

import { nearestName } from "../base/errors.ts";
import {
  PickleDict,
  PickleError,
  PickleFloat,
  type PickleKey,
  PickleList,
  PickleTuple,
  type PickleValue,
} from "./pickle_values.ts";
import { TorchView } from "./torch_rules.ts";

/** Containers in one another, and names of tensors, of one file. */
export const DEEPEST = 64;
export const MOST_TENSORS = 200_000;
/** Characters of all names together; branches that are shared multiply them. */
const LONGEST_NAMES = 64 * 1024 * 1024;
/** Items that are looked at while names are made; each is looked at once unless its branch is shared. */
const MOST_VISITS = 4_000_000;

type Container = PickleDict | PickleList | PickleTuple;
interface Facts {
  /** Tensors below, counted once for every way to them. */
  readonly tensors: number;
  readonly depth: number;
}

const isContainer = (value: PickleValue): value is Container =>
  value instanceof PickleDict || value instanceof PickleList || value instanceof PickleTuple;

/** How a key of a dictionary reads in a name. */
export function keyText(key: PickleKey): string {
  if (typeof key === "string") return key;
  if (key === null) return "None";
  if (typeof key === "boolean") return key ? "True" : "False";
  if (key instanceof PickleFloat) return Number.isInteger(key.value) ? `${key.value}.0` : String(key.value);
  // A tuple may hold one long text a thousand times, so that only its beginning is shown.
  if (key instanceof PickleTuple) return `(${key.items.slice(0, 8).map(itemText).join(", ")})`;
  return typeof key === "object" ? key.kind : String(key);
}

const itemText = (item: PickleValue) =>
  isContainer(item) ? "…" : item instanceof Uint8Array ? "bytes" : keyText(item).slice(0, 64);

function children(container: Container): Iterable<PickleValue> {
  return container instanceof PickleDict ? container.entries.values() : container.items;
}

const keyed = (container: Container): Iterable<[PickleKey, PickleValue]> =>
  container instanceof PickleDict ? container.entries : container.items.entries();

/** The tree of a file, counted. */
export class TorchTree {
  readonly root: PickleValue;
  readonly #facts = new Map<Container, Facts>();

  /** @throws PickleError it contains itself, or is too deep */
  constructor(root: PickleValue) {
    this.root = root;
    if (isContainer(root)) this.#survey(root);
  }

  /** Depth first without recursion; a container on the way down that is met again contains itself. */
  #survey(root: Container): void {
    interface Visit {
      container: Container;
      rest: Iterator<PickleValue>;
      tensors: number;
      depth: number;
    }
    const begin = (container: Container): Visit => ({
      container,
      rest: children(container)[Symbol.iterator](),
      tensors: 0,
      depth: 1,
    });
    const path: Visit[] = [begin(root)];
    const open = new Set<Container>([root]);
    while (path.length > 0) {
      const visit = path.at(-1)!;
      const next = visit.rest.next();
      if (next.done) {
        const facts = { tensors: visit.tensors, depth: visit.depth };
        this.#facts.set(visit.container, facts);
        open.delete(visit.container);
        path.pop();
        if (path.length > 0) this.#add(path.at(-1)!, facts);
      } else if (next.value instanceof TorchView) {
        visit.tensors++;
      } else if (isContainer(next.value)) {
        if (open.has(next.value)) throw new PickleError("limit", "a list or dictionary contains itself");
        const known = this.#facts.get(next.value);
        if (known !== undefined) this.#add(visit, known);
        else {
          if (path.length >= DEEPEST) throw tooDeep();
          path.push(begin(next.value));
          open.add(next.value);
        }
      }
    }
  }

  #add(visit: { tensors: number; depth: number }, below: Facts): void {
    visit.tensors += below.tensors;
    visit.depth = Math.max(visit.depth, below.depth + 1);
    if (visit.depth > DEEPEST) throw tooDeep();
  }

  /** Tensors below a value, counted once for every way to them. */
  count(value: PickleValue): number {
    if (value instanceof TorchView) return 1;
    return isContainer(value) ? this.#facts.get(value)!.tensors : 0;
  }

  /** What lies at a path of keys; the second result is the nearest name where there is nothing. */
  at(path: readonly string[]): { value: PickleValue } | { missing: string; near: string | null } {
    let value = this.root;
    for (const key of path) {
      let found: { value: PickleValue } | undefined;
      const entries = isContainer(value) ? keyed(value) : [];
      for (const [name, child] of entries) if (keyText(name) === key) found ??= { value: child };
      if (found === undefined) {
        const names = [...entries].slice(0, 1000).map(([name]) => keyText(name).slice(0, 200));
        return { missing: key, near: nearestName(key, names) };
      }
      value = found.value;
    }
    return { value };
  }

  /**
   * Every tensor below `from` under its name; a tensor that stands alone is called `tensor`.
   * @throws PickleError too many tensors, or two of one name
   */
  tensors(from: PickleValue): Map<string, TorchView> {
    const found = new Map<string, TorchView>();
    if (this.count(from) > MOST_TENSORS)
      throw new PickleError("limit", `it names ${this.count(from)} tensors, at most ${MOST_TENSORS} are read`);
    if (from instanceof TorchView) return found.set("tensor", from);
    let letters = 0;
    let visits = 0;
    const path: { prefix: string; rest: Iterator<[PickleKey, PickleValue]> }[] = [];
    const enter = (container: Container, prefix: string) =>
      path.push({ prefix, rest: keyed(container)[Symbol.iterator]() });
    if (isContainer(from)) enter(from, "");
    while (path.length > 0) {
      const { prefix, rest } = path.at(-1)!;
      const next = rest.next();
      if (next.done) {
        path.pop();
        continue;
      }
      const [key, value] = next.value;
      if (++visits > MOST_VISITS) throw new PickleError("limit", "its lists and dictionaries are shared too often");
      if (this.count(value) === 0) continue;
      const name = prefix + keyText(key);
      letters += name.length;
      if (letters > LONGEST_NAMES) throw new PickleError("limit", "the names of its tensors are too long");
      if (!(value instanceof TorchView)) enter(value as Container, `${name}.`);
      else if (found.has(name))
        throw new PickleError("damaged", `two tensors have the name ${JSON.stringify(name.slice(0, 200))}`);
      else found.set(name, value);
    }
    return found;
  }
}

const tooDeep = () => new PickleError("limit", `more than ${DEEPEST} lists and dictionaries lie in one another`);
