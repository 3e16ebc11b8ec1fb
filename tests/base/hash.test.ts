import { describe, expect, test } from "vitest";
import { Sha256, sha256, sha256File, sha256Stream } from "../../src/base/hash.ts";

describe("SHA-256", () => {
  test("gives the published digests of the standard's examples", () => {
    const two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    const digest = (text: string) => new Sha256().update(new TextEncoder().encode(text)).hex();
    expect(digest("")).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect(digest("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect(digest(two)).toBe("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  });

  test("pieces of any size give the platform's digest of the whole", async () => {
    for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 128, 1000]) {
      const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 31 + size) & 255);
      const expected = await sha256(bytes);
      for (const piece of [1, 7, 64, 100]) {
        const pieces = Array.from({ length: Math.ceil(size / piece) }, (_, i) =>
          bytes.subarray(i * piece, (i + 1) * piece),
        );
        expect(await sha256Stream(pieces)).toBe(expected);
      }
    }
  });

  test("a file longer than one piece is hashed by ranges", async () => {
    const bytes = new Uint8Array(5 * 1024 * 1024 + 3).map((_, i) => i & 255);
    const reads: number[] = [];
    const file = {
      size: bytes.length,
      read: async (offset: number, length: number) => {
        reads.push(length);
        return bytes.subarray(offset, offset + length);
      },
      close: async () => {},
    };
    expect(await sha256File(file)).toBe(await sha256(bytes));
    expect(reads.length).toBe(2);
  });
});
