// Thrift's compact protocol, in which parquet files describe themselves. Lists may announce any length, so each is checked
// against the bytes that are left before anything is built from it; nesting is limited.

export class ThriftError extends Error {}

export type ThriftValue = boolean | number | bigint | Uint8Array | ThriftValue[] | ThriftStruct;
/** Values by field number. */
export type ThriftStruct = Map<number, ThriftValue>;

const DEEPEST = 32;

/**
 * Parses one structure that begins at `at`.
 * @returns the structure and the place behind it
 * @throws ThriftError damaged, or cut off
 */
export function parseThrift(bytes: Uint8Array, at = 0): { value: ThriftStruct; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

  const byte = () => {
    if (at >= bytes.length) throw new ThriftError("it ends inside its description");
    return bytes[at++]!;
  };
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const next = byte();
      value |= BigInt(next & 127) << shift;
      if (next < 128) return value;
    }
    throw new ThriftError("a number of its description is too long");
  };
  const zigzag = () => {
    const value = varint();
    return (value >> 1n) ^ -(value & 1n);
  };
  const length = (smallest: number) => {
    const value = Number(varint());
    if (value * smallest > bytes.length - at)
      throw new ThriftError("a list of its description is longer than the file");
    return value;
  };

  const element = (type: number, depth: number): ThriftValue => {
    if (depth > DEEPEST) throw new ThriftError("its description is nested too deeply");
    switch (type) {
      case 1:
      case 2:
        return byte() === 1;
      case 3:
        return (byte() << 24) >> 24;
      case 4:
      case 5:
        return Number(BigInt.asIntN(32, zigzag()));
      case 6:
        return zigzag();
      case 7: {
        if (at + 8 > bytes.length) throw new ThriftError("it ends inside its description");
        at += 8;
        return view.getFloat64(at - 8, true);
      }
      case 8: {
        const size = length(1);
        at += size;
        return bytes.subarray(at - size, at);
      }
      case 9: {
        const head = byte();
        let size = head >> 4;
        if (size === 15) size = length(1);
        if (size > bytes.length - at) throw new ThriftError("a list of its description is longer than the file");
        return Array.from({ length: size }, () => element(head & 15, depth + 1));
      }
      case 12:
        return struct(depth + 1);
      default:
        throw new ThriftError(`its description holds a value of kind ${type}, which parquet does not use`);
    }
  };

  const struct = (depth: number): ThriftStruct => {
    const found: ThriftStruct = new Map();
    let field = 0;
    for (;;) {
      const head = byte();
      const type = head & 15;
      if (type === 0) return found;
      field = head >> 4 ? field + (head >> 4) : Number(BigInt.asIntN(16, zigzag()));
      found.set(field, type === 1 ? true : type === 2 ? false : element(type, depth));
    }
  };

  const value = struct(0);
  return { value, end: at };
}
