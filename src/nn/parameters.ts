// Names and places of a model's weights. A model declares each tensor it needs under its public name while it is built;
// loading then checks every name and shape against the file, so that a wrong checkpoint is refused with a list and not
// discovered by its pictures.

import { LongtailError } from "../base/errors.ts";
import {
  CODES_PER_WORD,
  encodeWeight,
  hasScales,
  QUANTIZATION_BLOCK,
  refuseBeyondHalves,
  type Storage,
  scaleCount,
  storedBytes,
  wordCount,
} from "../base/quantize.ts";
import type { TensorSource } from "../base/tensor_source.ts";
import type { Decoded, StoredMatrix } from "../ops/quantized.ts";
import type { Session } from "../tensor/session.ts";
import { type DType, elements, type Shape, sameShape, showShape } from "../tensor/shape.ts";
import { type Pool, Variable } from "../tensor/variable.ts";
import type { Linear } from "./linear.ts";
import { matrixRows, SplitMatrix } from "./split_matrix.ts";

/** A tensor of a model as it lies on the device. */
export type Declaration = Variable | StoredMatrix | SplitMatrix;

/** What all places of one tree share. */
interface Declared {
  tensors: Map<string, Declaration>;
  linears: Map<string, Linear>;
}

/** Memory that several tensors take turns in: the same table gives the same place to equal keys. */
export interface SharedPlaces {
  /** Pool and name inside it of a tensor, or null where the tensor has memory of its own. */
  of(name: string): { pool: Pool; key: string } | null;
  readonly table: Map<string, Declaration>;
}

export interface ParametersOptions {
  /** Element type of embeddings and convolutions, and of Linear layers where `storage` says nothing. */
  dtype?: DType;
  /** How matrices of Linear layers are kept. All but f32 are frozen: no gradient of theirs exists. */
  storage?: Storage;
  /** What products read of a stored matrix; f16 needs shader-f16 and rounds bf16, int8 and nf4 once more. */
  decoded?: Decoded;
  /** Tensors that lie in memory which others use at other times (streamed blocks). */
  shared?: SharedPlaces;
}

/** A place in a tree of parameter names; models declare their tensors through it. */
export class Parameters {
  readonly pool: Pool;
  readonly dtype: DType;
  readonly storage: Storage;
  private readonly options: ParametersOptions;
  private readonly prefix: string;
  private readonly declared: Declared;

  constructor(pool: Pool, options: ParametersOptions & { prefix?: string; declared?: Declared } = {}) {
    this.pool = pool;
    this.options = options;
    this.dtype = options.dtype ?? "f32";
    this.storage = options.storage ?? (this.dtype === "f16" ? "f16" : "f32");
    this.prefix = options.prefix ?? "";
    this.declared = options.declared ?? { tensors: new Map(), linears: new Map() };
  }

  /** Whether products round their factors to f16: weights are kept as f16, or decoded to it. */
  get halves(): boolean {
    return this.dtype === "f16" || this.storage === "f16" || this.options.decoded === "f16";
  }

  /** The subtree under `name`. */
  at(name: string | number): Parameters {
    return new Parameters(this.pool, {
      ...this.options,
      prefix: `${this.prefix}${name}.`,
      declared: this.declared,
    });
  }

  /** Remembers a Linear layer under this place's path, so that an adapter can find it. */
  register(layer: Linear): void {
    this.declared.linears.set(this.prefix.slice(0, -1), layer);
  }

  /** Linear layers of the whole tree by module path ("transformer_blocks.0.attn.to_q"), in order of declaration. */
  get linears(): ReadonlyMap<string, Linear> {
    return this.declared.linears;
  }

  /** Declares a tensor. Vectors stay f32: they are small, and norms and biases need the range. */
  tensor(name: string, shape: Shape): Variable {
    return this.tensorOf(name, shape, shape.length > 1 ? this.dtype : "f32");
  }

  private tensorOf(name: string, shape: Shape, dtype: DType): Variable {
    return this.declare(name, shape, (pool, key) => pool.add(key, shape, dtype)) as Variable;
  }

  /**
   * Declares the weight [out, in] of a Linear layer in this tree's storage. Where one binding does not hold it as f32,
   * which products decode to, it is split by rows.
   */
  matrix(name: string, shape: readonly [number, number]): Declaration {
    return this.declare(name, shape, (pool, key) => {
      const rows = matrixRows(shape, pool.limit);
      if (rows.length === 1) return this.wholeMatrix(pool, key, shape);
      let from = 0;
      const parts = rows.map((count) => {
        const to = from + count;
        const part = this.wholeMatrix(pool, `${key}[${from}:${to}]`, [count, shape[1]]);
        from = to;
        return part;
      });
      return new SplitMatrix(key, shape, parts);
    });
  }

  private wholeMatrix(pool: Pool, name: string, shape: readonly [number, number]): Variable | StoredMatrix {
    const { storage } = this;
    if (storage === "f32") return pool.add(name, shape, "f32");
    const count = elements(shape);
    return {
      name,
      storage,
      shape,
      codes: pool.add(name, [wordCount(storage, count)], "u32"),
      scales: hasScales(storage) ? pool.add(`${name}.scales`, [scaleCount(count)], "f32") : null,
      decoded: this.options.decoded ?? "f32",
    };
  }

  /** Remembers a tensor under its full name; its place is made, or is that of a tensor before it. */
  private declare(name: string, shape: Shape, make: (pool: Pool, key: string) => Declaration): Declaration {
    const full = this.prefix + name;
    const { shared } = this.options;
    const place = shared?.of(full) ?? null;
    let tensor = place ? shared!.table.get(place.key) : undefined;
    if (tensor && !sameShape(tensor.shape, shape))
      throw new Error(`${full} ${showShape(shape)} does not fit the place ${place!.key} ${showShape(tensor.shape)}`);
    if (!tensor) {
      tensor = place ? make(place.pool, place.key) : make(this.pool, full);
      if (place) shared!.table.set(place.key, tensor);
    }
    this.declared.tensors.set(full, tensor);
    return tensor;
  }

  /** Tensors declared so far under any prefix that are kept as they are, in order. */
  get variables(): ReadonlyMap<string, Variable> {
    return new Map([...this.declared.tensors].filter((entry): entry is [string, Variable] => isPlain(entry[1])));
  }

  /** All tensors declared so far under any prefix, in order, stored and split matrices too. */
  get tensors(): ReadonlyMap<string, Declaration> {
    return this.declared.tensors;
  }

  /** Number of the model's parameters, whatever they are stored as. */
  get count(): number {
    return [...this.tensors.values()].reduce((n, { shape }) => n + elements(shape), 0);
  }

  /** Bytes of the weights by what they are stored as, without the padding between them. */
  get bytesByStorage(): Readonly<Partial<Record<Storage, number>>> {
    const bytes: Partial<Record<Storage, number>> = {};
    for (const tensor of this.tensors.values()) {
      const storage = storageOf(tensor);
      bytes[storage] = (bytes[storage] ?? 0) + storedBytes(storage, elements(tensor.shape));
    }
    return bytes;
  }
}

function isPlain(tensor: Declaration): tensor is Variable {
  return tensor instanceof Variable;
}

/** How a tensor is kept; the parts of a split matrix are alike. */
export function storageOf(tensor: Declaration): Storage {
  if (tensor instanceof SplitMatrix) return storageOf(tensor.parts[0]!);
  return isPlain(tensor) ? (tensor.dtype === "f16" ? "f16" : "f32") : tensor.storage;
}

/**
 * Compares names and shapes of all declared tensors with those of `source`; nothing is read but the header, so it can be
 * done before anything is traced.
 * @param rename public name in the file of a declared name (identity by default)
 * @throws LongtailError E-FILE-030 where tensors are missing, E-FILE-031 where a shape differs
 */
export function checkParameters(
  parameters: Parameters,
  source: Pick<TensorSource, "name" | "has" | "shape">,
  rename: (name: string) => string = (name) => name,
): void {
  const missing = [...parameters.tensors.keys()].filter((name) => !source.has(rename(name)));
  if (missing.length > 0) {
    throw new LongtailError("E-FILE-030", {
      what: `${missing.length} of ${parameters.tensors.size} tensors are missing: ${missing.slice(0, 3).map(rename).join(", ")}${missing.length > 3 ? ", ..." : ""}`,
      where: source.name,
      why: "the file belongs to another model or another layout",
      fix: "check [model] in the configuration; the config.json beside the weights must describe them",
    });
  }
  for (const [name, tensor] of parameters.tensors) {
    const shape = source.shape(rename(name));
    if (!sameShape(shape, tensor.shape)) {
      throw new LongtailError("E-FILE-031", {
        what: `tensor ${rename(name)} has shape ${showShape(shape)}, and the model expects ${showShape(tensor.shape)}`,
        where: source.name,
        why: "the file and its config.json do not belong together",
        fix: "use the config.json that came with these weights",
      });
    }
  }
}

/**
 * Loads every declared tensor from `source` into the open session, one at a time: no more than one lies in host memory as
 * numbers.
 * @throws LongtailError as `checkParameters`; E-FILE-036 where a value that is to be stored in less than f32 is NaN or
 * infinite, E-FILE-037 where it is too large for its storage
 */
export async function loadParameters(
  session: Session,
  parameters: Parameters,
  source: TensorSource,
  rename: (name: string) => string = (name) => name,
): Promise<void> {
  checkParameters(parameters, source, rename);
  const bytes = Object.values(parameters.bytesByStorage).reduce((sum, n) => sum + n, 0);
  await session.upload(bytes, async (write) => {
    for (const [name, tensor] of parameters.tensors) {
      const values = await source.load(rename(name));
      checkDecoded(`${source.name}, ${rename(name)}`, tensor, values);
      const stored = storeTensor(`${source.name}, ${rename(name)}`, storageOf(tensor), values);
      for (const { variable, data } of placesOf(tensor, stored)) await write(variable, data);
    }
  });
}

/** Codes that products decode to f16 hold its range alone, whatever their storage: what is beyond would be infinite. */
function checkDecoded(where: string, tensor: Declaration, values: Float32Array): void {
  const part = tensor instanceof SplitMatrix ? tensor.parts[0]! : tensor;
  if (!isPlain(part) && part.decoded === "f16") refuseBeyondHalves(where, values);
}

/** A tensor as the device keeps it: numbers, f16 patterns of a plain tensor, or codes and their factors. */
export interface StoredTensor {
  codes: Float32Array | Uint16Array | Uint32Array;
  scales: Float32Array | null;
}

/**
 * Encodes a tensor for its place.
 * @throws LongtailError E-FILE-036, E-FILE-037 as `loadParameters`
 */
export function storeTensor(where: string, storage: Storage, values: Float32Array): StoredTensor {
  return storage === "f32" ? { codes: values, scales: null } : encodeWeight(where, storage, values);
}

/** The variables of a tensor and what of its stored form each takes. */
export function placesOf(
  tensor: Declaration,
  { codes, scales }: StoredTensor,
): { variable: Variable; data: StoredTensor["codes"] }[] {
  if (tensor instanceof SplitMatrix) {
    const storage = storageOf(tensor);
    const perCode = storage === "f32" ? 1 : CODES_PER_WORD[storage];
    let from = 0;
    // A part's codes and scales are a stretch of the whole: splits keep to whole blocks and words.
    return tensor.parts.flatMap((part) => {
      const to = from + elements(part.shape);
      const own = {
        codes: codes.subarray(from / perCode, Math.ceil(to / perCode)),
        scales: scales?.subarray(from / QUANTIZATION_BLOCK, scaleCount(to)) ?? null,
      };
      from = to;
      return placesOf(part, own);
    });
  }
  if (!isPlain(tensor)) {
    const all = [{ variable: tensor.codes, data: codes }];
    return tensor.scales ? [...all, { variable: tensor.scales, data: scales! }] : all;
  }
  // f16 patterns come as words where the encoder made them.
  const halves = tensor.dtype === "f16" && codes instanceof Uint32Array;
  const data = halves ? new Uint16Array(codes.buffer, codes.byteOffset, tensor.size) : codes;
  return [{ variable: tensor, data }];
}
