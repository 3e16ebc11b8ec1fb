// Where named tensors come from, seen from a model: a safetensors file, a sharded set, a torch archive, or memory.

export interface TensorSource {
  /** File or folder, for messages. */
  readonly name: string;
  names(): Iterable<string>;
  has(name: string): boolean;
  /** Throws where the tensor does not exist. */
  shape(name: string): readonly number[];
  /** Values as f32, whatever the file stores. */
  load(name: string): Promise<Float32Array>;
}

/** A source that is read by ranges, so that a part of a matrix costs no more than its own bytes. */
export interface RangedSource extends TensorSource {
  /** Element type that the values are stored in, as safetensors names it. */
  dtype(name: string): string;
  /** Elements from `first` on in row-major order as f32; all where `count` is absent. */
  loadRange(name: string, first: number, count?: number): Promise<Float32Array>;
  /** The same elements as they are stored, in the bytes of `dtype`. */
  loadBytes(name: string, first: number, count?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A source over values in memory. */
export function memorySource(
  name: string,
  tensors: Map<string, { shape: readonly number[]; data: Float32Array }>,
): TensorSource {
  const get = (key: string) => {
    const tensor = tensors.get(key);
    if (!tensor) throw new Error(`${name} has no tensor ${key}`);
    return tensor;
  };
  return {
    name,
    names: () => tensors.keys(),
    has: (key) => tensors.has(key),
    shape: (key) => get(key).shape,
    load: (key) => Promise.resolve(get(key).data),
  };
}
