// Small helpers for typed arrays.

type Numbers = Float32Array | Uint32Array | Uint8Array;

/**
 * The parts one after another.
 * @param make an array of the result's length; Float32Array by default
 */
export function joined<T extends Numbers = Float32Array>(
  parts: readonly T[],
  make: (length: number) => T = (length) => new Float32Array(length) as unknown as T,
): T {
  const out = make(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part as never, at);
    at += part.length;
  }
  return out;
}
