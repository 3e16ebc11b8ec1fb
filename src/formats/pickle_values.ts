// What a pickle machine makes (PEP 3154 and Python's pickletools name the opcodes): plain data and nothing else. Lists
// and dictionaries are objects of ours, so that no key of a stranger ever becomes a property of one.

/** A float of Python; whole numbers are `number`, or `bigint` beyond 2^53. */
export class PickleFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

export class PickleTuple {
  readonly items: readonly PickleValue[];
  constructor(items: readonly PickleValue[]) {
    this.items = items;
  }
}

export class PickleList {
  readonly items: PickleValue[] = [];
}

export type PickleKey = null | boolean | number | bigint | string | PickleFloat | PickleTuple | PickleObject;

export class PickleDict {
  /** Whether it may be given attributes (an OrderedDict), which are dropped. */
  readonly ordered: boolean;
  #entries: Map<PickleKey, PickleValue> | undefined;

  constructor(ordered = false) {
    this.ordered = ordered;
  }

  /** Made on first use: an empty dictionary costs a pickle one byte and must not cost a hundred here. */
  get entries(): Map<PickleKey, PickleValue> {
    this.#entries ??= new Map();
    return this.#entries;
  }

  get size(): number {
    return this.#entries?.size ?? 0;
  }
}

/** What the rules of a format make of a persistent id or a call; the machine only hands it around. */
export abstract class PickleObject {
  abstract readonly kind: string;
}

/** A name that the rules allow; `call` is absent where it may be mentioned and not called. */
export class PickleGlobal extends PickleObject {
  readonly kind = "global";
  readonly module: string;
  readonly name: string;
  readonly call: ((args: readonly PickleValue[]) => PickleValue) | undefined;

  constructor(module: string, name: string, call?: (args: readonly PickleValue[]) => PickleValue) {
    super();
    this.module = module;
    this.name = name;
    this.call = call;
  }

  get path(): string {
    return `${this.module}.${this.name}`;
  }
}

export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleFloat
  | PickleTuple
  | PickleList
  | PickleDict
  | PickleObject;

/** `global` a forbidden name, `opcode` a forbidden instruction, `limit` too much, `end` cut off, `damaged` the rest. */
export type PickleFault = "global" | "opcode" | "limit" | "end" | "damaged" | "tensor" | "storage";

/** Why a pickle is refused. The reader of the file makes a coded error of it. */
export class PickleError extends Error {
  readonly fault: PickleFault;
  constructor(fault: PickleFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

/** What a value is, in words for messages. */
export function describe(value: PickleValue): string {
  if (value === null) return "None";
  if (typeof value === "string") return `the text ${JSON.stringify(value.slice(0, 40))}`;
  if (typeof value === "number" || typeof value === "bigint") return `the number ${value}`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value instanceof Uint8Array) return "bytes";
  if (value instanceof PickleFloat)
    return `the float ${Number.isInteger(value.value) ? value.value.toFixed(1) : value.value}`;
  if (value instanceof PickleTuple) return `a tuple of ${value.items.length}`;
  if (value instanceof PickleList) return "a list";
  if (value instanceof PickleDict) return "a dictionary";
  return value instanceof PickleGlobal ? value.path : `a ${value.kind}`;
}
