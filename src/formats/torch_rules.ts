// What the pickle of a torch.save file may name and call: storages, types and the functions that describe a tensor as a
// view of a storage (torch/_utils.py, torch/_tensor.py). Nothing is loaded here; a tensor is its storage, offset, shape
// and strides, checked against the storage's length.

import type { PickleRules } from "./pickle.ts";
import {
  describe,
  PickleDict,
  PickleError,
  PickleGlobal,
  PickleObject,
  PickleTuple,
  type PickleValue,
} from "./pickle_values.ts";
import { DTYPE_BITS, type Dtype } from "./safetensors_header.ts";

/** Types of torch's storages (`torch.FloatStorage`) and their names in safetensors. */
const STORAGES: Readonly<Record<string, Dtype>> = {
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  DoubleStorage: "F64",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** Types of torch (`torch.float16`) and their names in safetensors. */
const DTYPES: Readonly<Record<string, Dtype>> = {
  float32: "F32",
  float: "F32",
  float16: "F16",
  half: "F16",
  bfloat16: "BF16",
  float64: "F64",
  double: "F64",
  int64: "I64",
  long: "I64",
  int32: "I32",
  int: "I32",
  int16: "I16",
  short: "I16",
  int8: "I8",
  uint8: "U8",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  bool: "BOOL",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
};

/** What a view may repeat (stride 0, overlapping rows) beyond the elements of its storage: 16 MiB of float32. */
const MOST_REPEATED = 4 * 1024 * 1024;
/** torch's keys are short numbers. */
const LONGEST_KEY = 256;
/** torch's own limit of dimensions. */
const MOST_DIMENSIONS = 64;

/** A storage as the pickle describes it: `bytes` stored bytes under a key. */
export class TorchStorage extends PickleObject {
  readonly kind = "storage";
  readonly key: string;
  /** Null for an untyped storage, whose tensors bring their types. */
  readonly dtype: Dtype | null;
  readonly bytes: number;
  /** Where this view of the storage begins and how long it is; legacy files name views. */
  readonly viewBegin: number;
  readonly viewBytes: number;

  constructor(key: string, dtype: Dtype | null, bytes: number, viewBegin = 0, viewBytes = bytes) {
    super();
    this.key = key;
    this.dtype = dtype;
    this.bytes = bytes;
    this.viewBegin = viewBegin;
    this.viewBytes = viewBytes;
  }
}

/** A tensor as a strided view of a storage. */
export class TorchView extends PickleObject {
  readonly kind = "tensor";
  readonly storage: TorchStorage;
  readonly dtype: Dtype;
  /** First element, counted from the beginning of the storage's view. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly elements: number;

  constructor(storage: TorchStorage, dtype: Dtype, offset: number, shape: number[], strides: number[]) {
    super();
    this.storage = storage;
    this.dtype = dtype;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
    this.elements = checkView(storage, dtype, offset, shape, strides);
  }

  /** Whether its elements lie one after another in row-major order. */
  get contiguous(): boolean {
    let expected = 1;
    for (let d = this.shape.length - 1; d >= 0; d--) {
      if (this.shape[d] !== 1 && this.strides[d] !== expected) return false;
      expected *= this.shape[d]!;
    }
    return true;
  }

  /** Place of the last element beyond the first, in elements. */
  get span(): number {
    return this.shape.reduce((sum, size, d) => sum + (size - 1) * this.strides[d]!, 0);
  }
}

function checkView(storage: TorchStorage, dtype: Dtype, offset: number, shape: number[], strides: number[]): number {
  const refuse = (why: string): never => {
    const shown = `shape [${shape.slice(0, 8)}], strides [${strides.slice(0, 8)}], offset ${offset}`;
    throw new PickleError("tensor", `a tensor of ${shown} in storage ${JSON.stringify(storage.key)}: ${why}`);
  };
  if (shape.length !== strides.length) refuse(`${shape.length} sizes and ${strides.length} strides`);
  if (shape.length > MOST_DIMENSIONS) refuse(`more than ${MOST_DIMENSIONS} dimensions`);
  const held = Math.floor(storage.viewBytes / (DTYPE_BITS[dtype] / 8));
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (elements > Number.MAX_SAFE_INTEGER) refuse("its number of elements is beyond 2^53");
  }
  if (elements === 0) return 0;
  let last = offset;
  for (const [d, size] of shape.entries()) last += (size - 1) * strides[d]!;
  if (last >= held) refuse(`its last element is number ${last}, and the storage has ${held}`);
  if (elements > Math.max(held, MOST_REPEATED))
    refuse(`it repeats the ${held} elements of its storage to ${elements}; at most ${MOST_REPEATED} are made`);
  return elements;
}

function wholeNumber(value: PickleValue | undefined, what: string): number {
  if (typeof value === "number" && value >= 0) return value;
  const shown = value === undefined ? "missing" : describe(value);
  throw new PickleError("tensor", `${what} is ${shown}, not a whole number from 0 to 2^53`);
}

function wholeNumbers(value: PickleValue | undefined, what: string): number[] {
  if (!(value instanceof PickleTuple)) throw new PickleError("tensor", `${what} of a tensor is not a tuple`);
  return value.items.map((item) => wholeNumber(item, `a number in ${what} of a tensor`));
}

class TorchType extends PickleGlobal {
  readonly dtype: Dtype | null;
  readonly isStorage: boolean;
  constructor(module: string, name: string, dtype: Dtype | null, isStorage: boolean) {
    super(module, name);
    this.dtype = dtype;
    this.isStorage = isStorage;
  }
}

/** Calls with the number of arguments that they take. */
function callable(
  module: string,
  name: string,
  least: number,
  most: number,
  call: (a: readonly PickleValue[]) => PickleValue,
) {
  return new PickleGlobal(module, name, (args) => {
    if (args.length < least || args.length > most)
      throw new PickleError("tensor", `${module}.${name} is called with ${args.length} arguments, it takes ${least}`);
    return call(args);
  });
}

function rebuild(args: readonly PickleValue[], named?: PickleValue): TorchView {
  const [storage, offset, shape, strides] = args;
  if (!(storage instanceof TorchStorage)) throw new PickleError("tensor", "a tensor is made from no storage");
  const dtype =
    named === undefined ? storage.dtype : named instanceof TorchType && !named.isStorage ? named.dtype : null;
  if (dtype === null) throw new PickleError("tensor", "a tensor has no type");
  const first = wholeNumber(offset, "the offset of a tensor");
  return new TorchView(storage, dtype, first, wholeNumbers(shape, "the shape"), wholeNumbers(strides, "the strides"));
}

function parameter(value: PickleValue | undefined): TorchView {
  if (value instanceof TorchView) return value;
  throw new PickleError("tensor", "a Parameter is made from no tensor");
}

const UTILS = "torch._utils";
const CALLS: readonly PickleGlobal[] = [
  callable("collections", "OrderedDict", 0, 1, (args) => {
    if (args.length > 0 && !isEmptySequence(args[0]!))
      throw new PickleError("opcode", "an OrderedDict is made from a list, as only protocols below 2 do");
    return new PickleDict(true);
  }),
  callable("torch", "Size", 1, 1, ([sizes]) => new PickleTuple(wholeNumbers(sizes, "the shape"))),
  callable("torch", "device", 1, 2, ([name]) => name!),
  callable(UTILS, "_rebuild_tensor", 4, 4, (args) => rebuild(args)),
  callable(UTILS, "_rebuild_tensor_v2", 6, 7, (args) => rebuild(args)),
  callable(UTILS, "_rebuild_tensor_v3", 7, 8, (args) => rebuild(args, args[6])),
  callable(UTILS, "_rebuild_parameter", 3, 3, ([data]) => parameter(data)),
  callable(UTILS, "_rebuild_parameter_with_state", 4, 4, ([data]) => parameter(data)),
];

function isEmptySequence(value: PickleValue): boolean {
  return (
    (value instanceof PickleTuple && value.items.length === 0) || (value instanceof PickleDict && value.size === 0)
  );
}

/** Every global that a file may name, by `module.name`; «torch.*» for the lists in messages is `ALLOWED`. */
const GLOBALS: ReadonlyMap<string, PickleGlobal> = new Map(
  [
    ...CALLS,
    ...Object.entries(STORAGES).map(([name, dtype]) => new TorchType("torch", name, dtype, true)),
    // Files of torch 1.x written on a graphics card name its storages.
    ...Object.entries(STORAGES).map(([name, dtype]) => new TorchType("torch.cuda", name, dtype, true)),
    ...["UntypedStorage", "_UntypedStorage"].map((name) => new TorchType("torch.storage", name, null, true)),
    new TorchType("torch", "UntypedStorage", null, true),
    ...Object.entries(DTYPES).map(([name, dtype]) => new TorchType("torch", name, dtype, false)),
  ].map((entry) => [entry.path, entry]),
);

/** The rules of one file; `storages` collects what it refers to. */
export class TorchRules implements PickleRules {
  readonly storages = new Map<string, TorchStorage>();

  global(module: string, name: string): PickleGlobal | null {
    return GLOBALS.get(`${module}.${name}`) ?? null;
  }

  /** ('storage', type, key, location, number of elements[, view of legacy files]). The location says where it was. */
  persistent(id: PickleValue): TorchStorage {
    const fields = id instanceof PickleTuple ? id.items : [];
    if (fields[0] !== "storage" || fields.length < 5 || fields.length > 6)
      throw new PickleError("storage", `a persistent id is ${describe(id)}, not a storage`);
    const [, type, key, , count, view] = fields;
    if (!(type instanceof TorchType && type.isStorage))
      throw new PickleError("storage", `a storage has ${describe(type!)} as its type`);
    if (typeof key !== "string") throw new PickleError("storage", `a storage has ${describe(key!)} as its key`);
    if (key.length > LONGEST_KEY) throw new PickleError("storage", "the key of a storage is longer than any file name");
    const size = type.dtype === null ? 1 : DTYPE_BITS[type.dtype] / 8;
    const bytes = wholeNumber(count, `the length of storage ${JSON.stringify(key)}`) * size;
    if (bytes > Number.MAX_SAFE_INTEGER)
      throw new PickleError("storage", `storage ${JSON.stringify(key)} has ${bytes} bytes, more than any file`);
    const known = this.storages.get(key);
    if (known === undefined) this.storages.set(key, new TorchStorage(key, type.dtype, bytes));
    else if (known.dtype !== type.dtype || known.bytes !== bytes)
      throw new PickleError("storage", `storage ${JSON.stringify(key)} is described in two different ways`);
    const storage = this.storages.get(key)!;
    return view === undefined || view === null ? storage : viewOf(storage, view, size);
  }
}

/** A legacy view: (key of the view, offset, length) in elements. */
function viewOf(storage: TorchStorage, view: PickleValue, size: number): TorchStorage {
  const [, first, count] = view instanceof PickleTuple ? view.items : [];
  const begin = wholeNumber(first, "the offset of a storage's view") * size;
  const bytes = wholeNumber(count, "the length of a storage's view") * size;
  if (begin + bytes > storage.bytes)
    throw new PickleError("storage", `a view of storage ${JSON.stringify(storage.key)} goes beyond its end`);
  return new TorchStorage(storage.key, storage.dtype, storage.bytes, begin, bytes);
}
