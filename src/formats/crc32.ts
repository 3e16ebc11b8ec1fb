// The checksum of zip, gzip and PNG (CRC-32, ISO 3309), which can be fed piece by piece. Eight tables take eight bytes a
// turn («slicing by 8», Kounavis and Berry 2005), because checkpoints have gigabytes.

const TABLES: readonly Uint32Array[] = (() => {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
    tables[0]![n] = c;
  }
  for (let n = 0; n < 256; n++)
    for (let t = 1; t < 8; t++) {
      const before = tables[t - 1]![n]!;
      tables[t]![n] = tables[0]![before & 255]! ^ (before >>> 8);
    }
  return tables;
})();

const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
];

/** A checksum that grows with the data. */
export class Crc32 {
  #state = -1;

  add(bytes: Uint8Array): this {
    let crc = this.#state;
    let i = 0;
    for (const whole = bytes.length - 7; i < whole; i += 8) {
      const x = crc ^ (bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
      crc =
        T7[x & 255]! ^
        T6[(x >>> 8) & 255]! ^
        T5[(x >>> 16) & 255]! ^
        T4[x >>> 24]! ^
        T3[bytes[i + 4]!]! ^
        T2[bytes[i + 5]!]! ^
        T1[bytes[i + 6]!]! ^
        T0[bytes[i + 7]!]!;
    }
    for (; i < bytes.length; i++) crc = T0[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
    this.#state = crc;
    return this;
  }

  get value(): number {
    return ~this.#state >>> 0;
  }
}

/** The checksum of `bytes`. */
export function crc32(bytes: Uint8Array): number {
  return new Crc32().add(bytes).value;
}
