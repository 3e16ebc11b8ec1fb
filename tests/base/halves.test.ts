import { describe, expect, test } from "vitest";
import { bf16ToF32, E4M3FN, E5M2, e4m3ToF32, e5m2ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../../src/base/halves.ts";

const all16 = Uint16Array.from({ length: 65536 }, (_, i) => i);
const bitsOf = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);

/** The value of a float16 or bfloat16 pattern by the definition of the format. */
function byDefinition(code: number, exponentBits: number, mantissaBits: number): number {
  const sign = code >> 15 ? -1 : 1;
  const exponent = (code >> mantissaBits) & ((1 << exponentBits) - 1);
  const fraction = (code & ((1 << mantissaBits) - 1)) / 2 ** mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

describe("float16", () => {
  test("all 65,536 patterns read as the format defines them", () => {
    const values = f16ToF32(all16);
    for (let i = 0; i < 65536; i++)
      if (!Object.is(values[i], byDefinition(i, 5, 10))) expect(values[i]).toBe(byDefinition(i, 5, 10));
  });

  test("every number that float16 can hold comes back unchanged and NaN stays NaN", () => {
    const back = f32ToF16(f16ToF32(all16));
    for (let i = 0; i < 65536; i++) {
      const isNaN16 = (i & 0x7fff) > 0x7c00;
      if (isNaN16 ? (back[i]! & 0x7fff) <= 0x7c00 : back[i] !== i) expect([i, back[i]]).toBe("unchanged");
    }
  });

  test("the middle between two neighbours goes to the even one, a hair off the middle to the nearer one", () => {
    for (let i = 0; i < 0x7bff; i++) {
      const [low, high] = [byDefinition(i, 5, 10), byDefinition(i + 1, 5, 10)];
      const middle = Math.fround((low + high) / 2);
      const bits = Uint32Array.of(
        bitsOf(Float32Array.of(middle))[0]! - 1,
        bitsOf(Float32Array.of(middle))[0]!,
        bitsOf(Float32Array.of(middle))[0]! + 1,
      );
      const found = f32ToF16(new Float32Array(bits.buffer));
      const expected = [i, i % 2 ? i + 1 : i, i + 1];
      if (found.join() !== expected.join()) expect([...found]).toEqual(expected);
    }
  });

  test("overflow rounds to infinity from 65,520 on and signs survive", () => {
    const found = f32ToF16(Float32Array.of(65519.996, 65520, -65520, 1e30, -Infinity, -0, 1e-30, -(2 ** -24)));
    expect([...found]).toEqual([0x7bff, 0x7c00, 0xfc00, 0x7c00, 0xfc00, 0x8000, 0, 0x8001]);
  });

  test("a view into the middle of a buffer is written and nothing around it", () => {
    const room = new Float32Array(4).fill(9);
    f16ToF32(Uint16Array.of(0x3c00, 0xc000), room.subarray(1, 3));
    expect([...room]).toEqual([9, 1, -2, 9]);
  });
});

describe("bfloat16", () => {
  test("all patterns read as defined and come back", () => {
    const values = bf16ToF32(all16);
    const back = f32ToBf16(values);
    for (let i = 0; i < 65536; i++) {
      if (!Object.is(values[i], byDefinition(i, 8, 7))) expect(values[i]).toBe(byDefinition(i, 8, 7));
      if (!Number.isNaN(values[i]) && back[i] !== i) expect([i, back[i]]).toBe("unchanged");
    }
  });

  test("ties go to even, NaN with any payload stays NaN, the largest float32 becomes infinity", () => {
    const bits = Uint32Array.of(0x3f808000, 0x3f818000, 0x3f808001, 0x7f800001, 0xffffffff, 0x7f7fffff);
    expect([...f32ToBf16(new Float32Array(bits.buffer))]).toEqual([0x3f80, 0x3f82, 0x3f81, 0x7fc0, 0xffff, 0x7f80]);
  });
});

describe("8-bit floats", () => {
  test("e4m3fn has 448 as its largest value, 2^-9 as its smallest, two NaN and no infinity", () => {
    const found = e4m3ToF32(Uint8Array.of(0x7e, 0xfe, 0x01, 0x08, 0x38, 0x7f, 0xff, 0x80));
    expect([...found]).toEqual([448, -448, 2 ** -9, 2 ** -6, 1, Number.NaN, Number.NaN, -0]);
    expect(E4M3FN.filter(Number.isNaN).length).toBe(2);
  });

  test("e5m2 is the upper byte of float16", () => {
    const codes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const expected = f16ToF32(Uint16Array.from(codes, (code) => code << 8));
    expect([...e5m2ToF32(codes)]).toEqual([...expected]);
    expect(E5M2[0x7b]).toBe(57344);
  });
});
