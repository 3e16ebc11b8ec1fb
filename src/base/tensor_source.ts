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
