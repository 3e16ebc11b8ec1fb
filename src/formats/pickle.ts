// A pickle machine that executes nothing: it knows the opcodes that data needs (protocols 2 to 5), asks its rules for
// every name, and calls only what the rules gave it. All lengths are checked against the bytes there are, and what a
// pickle may pile up is bounded, so that a small file cannot take much memory. Opcodes: Python's pickletools.

import { OPCODE_NAMES } from "./pickle_opcodes.ts";
import {
  describe,
  PickleDict,
  PickleError,
  PickleFloat,
  PickleGlobal,
  type PickleKey,
  PickleList,
  PickleObject,
  PickleTuple,
  type PickleValue,
} from "./pickle_values.ts";

export interface PickleRules {
  /** The meaning of a global name, or null where it is forbidden. */
  global(module: string, name: string): PickleGlobal | null;
  /** The object behind a persistent id. */
  persistent(id: PickleValue): PickleValue;
}

/** The longest pickle that is read: a checkpoint of 100,000 tensors takes half of it. */
export const LONGEST_PICKLE = 32 * 1024 * 1024;
/** Lists, tuples and dictionaries of a pickle, values on the stack, and slots of the memo, each. */
const MOST = 1_000_000;
/** Bytes of the longest whole number; sizes and offsets need eight. */
const LONGEST_NUMBER = 256;
const LONGEST_NAME = 256;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Runs the pickle that begins at `start` and returns its value and the place behind its STOP.
 * @throws PickleError; its fault is `end` where the bytes end before the pickle does
 */
export function unpickle(bytes: Uint8Array, start: number, rules: PickleRules): { value: PickleValue; end: number } {
  return new Machine(bytes, start, rules).run();
}

class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #rules: PickleRules;
  readonly #stack: PickleValue[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #made = 0;
  #at: number;

  constructor(bytes: Uint8Array, start: number, rules: PickleRules) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = start;
    this.#rules = rules;
  }

  run(): { value: PickleValue; end: number } {
    for (;;) {
      const opcode = this.#bytes[this.#take(1)]!;
      if (opcode === 0x2e) return { value: this.#pop(), end: this.#at };
      this.#step(opcode);
    }
  }

  #step(opcode: number): void {
    switch (opcode) {
      case 0x80: {
        const protocol = this.#u8();
        if (protocol > 5) throw this.#fault("opcode", `it is of protocol ${protocol}; 2 to 5 are read`);
        return;
      }
      case 0x95: // FRAME: a hint for buffering; its length is not needed
        this.#take(8);
        return;
      case 0x4e: // NONE
        this.#push(null);
        return;
      case 0x88: // NEWTRUE
        this.#push(true);
        return;
      case 0x89: // NEWFALSE
        this.#push(false);
        return;
      case 0x4b: // BININT1
        this.#push(this.#u8());
        return;
      case 0x4d: // BININT2
        this.#push(this.#view.getUint16(this.#take(2), true));
        return;
      case 0x4a: // BININT
        this.#push(this.#view.getInt32(this.#take(4), true));
        return;
      case 0x8a: // LONG1
        this.#push(this.#long(this.#u8()));
        return;
      case 0x8b: // LONG4
        this.#push(this.#long(this.#view.getInt32(this.#take(4), true)));
        return;
      case 0x47: // BINFLOAT
        this.#push(new PickleFloat(this.#view.getFloat64(this.#take(8), false)));
        return;
      case 0x8c: // SHORT_BINUNICODE
        this.#push(this.#text(this.#u8()));
        return;
      case 0x58: // BINUNICODE
        this.#push(this.#text(this.#u32()));
        return;
      case 0x8d: // BINUNICODE8
        this.#push(this.#text(this.#u64()));
        return;
      case 0x55: // SHORT_BINSTRING, from Python 2
        this.#push(this.#text(this.#u8()));
        return;
      case 0x54: // BINSTRING, from Python 2
        this.#push(this.#text(this.#u32()));
        return;
      case 0x43: // SHORT_BINBYTES
        this.#push(this.#slice(this.#u8()));
        return;
      case 0x42: // BINBYTES
        this.#push(this.#slice(this.#u32()));
        return;
      case 0x8e: // BINBYTES8
        this.#push(this.#slice(this.#u64()));
        return;
      case 0x29: // EMPTY_TUPLE
        this.#push(this.#tuple([]));
        return;
      case 0x85: // TUPLE1
        this.#push(this.#tuple([this.#pop()]));
        return;
      case 0x86: // TUPLE2
        this.#push(this.#tuple([this.#pop(), this.#pop()].reverse()));
        return;
      case 0x87: // TUPLE3
        this.#push(this.#tuple([this.#pop(), this.#pop(), this.#pop()].reverse()));
        return;
      case 0x74: // TUPLE
        this.#push(this.#tuple(this.#popMark()));
        return;
      case 0x5d: // EMPTY_LIST
        this.#count();
        this.#push(new PickleList());
        return;
      case 0x7d: // EMPTY_DICT
        this.#count();
        this.#push(new PickleDict());
        return;
      case 0x28: // MARK
        if (this.#marks.length >= MOST) throw this.#fault("limit", `more than ${MOST} marks are open`);
        this.#marks.push(this.#stack.length);
        return;
      case 0x30: // POP
        if (this.#stack.length > (this.#marks.at(-1) ?? 0)) this.#stack.pop();
        else this.#popMark();
        return;
      case 0x31: // POP_MARK
        this.#popMark();
        return;
      case 0x61: // APPEND
        this.#append([this.#pop()]);
        return;
      case 0x65: // APPENDS
        this.#append(this.#popMark());
        return;
      case 0x73: // SETITEM
        this.#setItems([this.#pop(), this.#pop()].reverse());
        return;
      case 0x75: // SETITEMS
        this.#setItems(this.#popMark());
        return;
      case 0x71: // BINPUT
        this.#remember(this.#u8());
        return;
      case 0x72: // LONG_BINPUT
        this.#remember(this.#u32());
        return;
      case 0x94: // MEMOIZE
        this.#remember(this.#memo.size);
        return;
      case 0x68: // BINGET
        this.#recall(this.#u8());
        return;
      case 0x6a: // LONG_BINGET
        this.#recall(this.#u32());
        return;
      case 0x63: // GLOBAL
        this.#global(this.#line(), this.#line());
        return;
      case 0x93: {
        // STACK_GLOBAL
        const [name, module] = [this.#pop(), this.#pop()];
        if (typeof name !== "string" || typeof module !== "string")
          throw this.#fault("damaged", `a global is named by ${describe(module)} and ${describe(name)}`);
        this.#global(module, name);
        return;
      }
      case 0x52: // REDUCE
        this.#reduce();
        return;
      case 0x62: // BUILD
        this.#build();
        return;
      case 0x51: // BINPERSID
        this.#push(this.#persistent(this.#pop()));
        return;
      default: {
        const name = OPCODE_NAMES.get(opcode);
        const shown = `0x${opcode.toString(16).padStart(2, "0")}`;
        throw this.#fault(
          name === undefined ? "damaged" : "opcode",
          name === undefined ? `${shown} is no opcode of pickle` : `the opcode ${name} (${shown}) is not read`,
        );
      }
    }
  }

  #fault(kind: PickleError["fault"], what: string): PickleError {
    return new PickleError(kind, `${what} (before byte ${this.#at} of the pickle)`);
  }

  /** The place of the next `length` bytes, which are then behind. */
  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new PickleError("end", `it ends inside an instruction at byte ${at}`);
    this.#at = at + length;
    return at;
  }

  #u8 = () => this.#bytes[this.#take(1)]!;
  #u32 = () => this.#view.getUint32(this.#take(4), true);

  #u64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  #slice(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.slice(at, at + length);
  }

  #text(length: number): string {
    const at = this.#take(length);
    // Most names are short and ASCII; a decoder costs more than they do.
    if (length <= 48) {
      let out = "";
      let i = at;
      for (; i < at + length && this.#bytes[i]! < 128; i++) out += String.fromCharCode(this.#bytes[i]!);
      if (i === at + length) return out;
    }
    try {
      return utf8.decode(this.#bytes.subarray(at, at + length));
    } catch {
      throw this.#fault("damaged", "a text is not UTF-8");
    }
  }

  /** Little-endian two's complement of any length. */
  #long(length: number): number | bigint {
    if (length < 0) throw this.#fault("damaged", `a number has ${length} bytes`);
    const at = this.#take(length);
    if (length > LONGEST_NUMBER) throw this.#fault("limit", `a number has ${length} bytes, ${LONGEST_NUMBER} are read`);
    let value = 0n;
    for (let i = at + length - 1; i >= at; i--) value = (value << 8n) | BigInt(this.#bytes[i]!);
    if (length > 0 && this.#bytes[at + length - 1]! >= 128) value -= 1n << BigInt(8 * length);
    const small = Number(value);
    return Number.isSafeInteger(small) ? small : value;
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#at);
    if (end < 0 && this.#bytes.length - this.#at <= LONGEST_NAME) throw new PickleError("end", "it ends inside a name");
    if (end < 0 || end - this.#at > LONGEST_NAME) throw this.#fault("damaged", "a name has no end");
    const line = this.#text(end - this.#at);
    this.#at = end + 1;
    return line;
  }

  #push(value: PickleValue): void {
    if (this.#stack.length >= MOST) throw this.#fault("limit", `more than ${MOST} values are on its stack`);
    this.#stack.push(value);
  }

  /** The top of the stack; what lies below the last mark is out of reach. */
  #pop(): PickleValue {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.#fault("damaged", "its stack is empty");
    return this.#stack.pop()!;
  }

  #top(): PickleValue {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.#fault("damaged", "its stack is empty");
    return this.#stack.at(-1)!;
  }

  #popMark(): PickleValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#fault("damaged", "it has no mark to go back to");
    return this.#stack.splice(mark);
  }

  #count(): void {
    if (++this.#made > MOST) throw this.#fault("limit", `it makes more than ${MOST} lists, tuples and dictionaries`);
  }

  #tuple(items: PickleValue[]): PickleTuple {
    this.#count();
    return new PickleTuple(items);
  }

  #append(items: PickleValue[]): void {
    const list = this.#top();
    if (!(list instanceof PickleList)) throw this.#fault("damaged", `it appends to ${describe(list)}`);
    for (const item of items) list.items.push(item);
  }

  #setItems(items: PickleValue[]): void {
    const dict = this.#top();
    if (!(dict instanceof PickleDict)) throw this.#fault("damaged", `it sets an item of ${describe(dict)}`);
    if (items.length % 2 !== 0) throw this.#fault("damaged", "a key of a dictionary has no value");
    if (items.length === 0) return;
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i]!;
      const cannot = key instanceof PickleList || key instanceof PickleDict || key instanceof Uint8Array;
      if (cannot) throw this.#fault("damaged", `${describe(key)} is a key of a dictionary`);
      dict.entries.set(key as PickleKey, items[i + 1]!);
    }
  }

  #remember(slot: number): void {
    this.#memo.set(slot, this.#top());
    if (this.#memo.size > MOST) throw this.#fault("limit", `its memo has more than ${MOST} slots`);
  }

  #recall(slot: number): void {
    const value = this.#memo.get(slot);
    if (value === undefined) throw this.#fault("damaged", `it asks for slot ${slot} of its memo, which is empty`);
    this.#push(value);
  }

  #global(module: string, name: string): void {
    const found = this.#rules.global(module, name);
    if (found === null) {
      const path = `${module}.${name}`.replace(/[^\x21-\x7e]/g, "\ufffd").slice(0, LONGEST_NAME);
      throw this.#fault("global", `it names ${path}`);
    }
    this.#push(found);
  }

  #persistent(id: PickleValue): PickleValue {
    return this.#named(() => this.#rules.persistent(id));
  }

  #reduce(): void {
    const [args, callee] = [this.#pop(), this.#pop()];
    if (!(callee instanceof PickleGlobal) || callee.call === undefined)
      throw this.#fault("damaged", `it calls ${describe(callee)}`);
    if (!(args instanceof PickleTuple)) throw this.#fault("damaged", `it calls ${callee.path} with ${describe(args)}`);
    this.#count();
    const call = callee.call;
    this.#push(this.#named(() => call(args.items)));
  }

  /** Runs a rule. What it refuses lies under the text that was pushed last, the key of a dictionary. */
  #named<T>(rule: () => T): T {
    try {
      return rule();
    } catch (error) {
      if (!(error instanceof PickleError)) throw error;
      const key = this.#stack.slice(-16).findLast((value) => typeof value === "string");
      if (typeof key !== "string") throw error;
      throw new PickleError(error.fault, `${error.message} (under the key ${JSON.stringify(key.slice(0, 200))})`);
    }
  }

  /** Attributes of an OrderedDict (`_metadata` of a state dict) are dropped; nothing else may be given any. */
  #build(): void {
    const state = this.#pop();
    const target = this.#top();
    if (!(target instanceof PickleDict && target.ordered) || state instanceof PickleObject)
      throw this.#fault("opcode", `the opcode BUILD sets attributes of ${describe(target)}`);
  }
}
