// Files of torch.save before torch 1.6 (torch/serialization.py, `_legacy_save`): five pickles one after another (magic
// number, protocol, facts of the machine, the value, the keys of the storages), then every storage as its length and its
// bytes. The pickles do not say how long they are, so they are read in windows that grow.

import type { FileHandle } from "../base/files.ts";
import { LONGEST_PICKLE, unpickle } from "./pickle.ts";
import { PickleDict, PickleError, PickleList, type PickleValue } from "./pickle_values.ts";
import { DTYPE_BITS } from "./safetensors_header.ts";
import { refusal } from "./torch_error.ts";
import { TorchRules } from "./torch_rules.ts";

/** `torch.serialization.MAGIC_NUMBER`. */
const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL = 1001;
const FIRST_WINDOW = 64 * 1024;

/** Bytes of a file from its start, as far as they were asked for. */
class Window {
  readonly #handle: FileHandle;
  bytes = new Uint8Array(0);

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Reads as much again; false where there is no more that may be read. */
  async grow(): Promise<boolean> {
    const length = Math.min(this.#handle.size, LONGEST_PICKLE, Math.max(FIRST_WINDOW, this.bytes.length * 2));
    if (length === this.bytes.length) return false;
    const grown = new Uint8Array(length);
    grown.set(this.bytes);
    grown.set(await this.#handle.read(this.bytes.length, length - this.bytes.length), this.bytes.length);
    this.bytes = grown;
    return true;
  }
}

/** The value of a legacy file, and where the bytes of each storage lie. */
export async function readLegacy(
  handle: FileHandle,
  where: string,
): Promise<{ root: PickleValue; rules: TorchRules; places: Map<string, number> }> {
  const view = new Window(handle);
  let at = 0;
  // A pickle that the window cuts off starts again in a larger one, with rules that have seen nothing.
  const next = async (): Promise<{ value: PickleValue; rules: TorchRules }> => {
    for (;;) {
      const rules = new TorchRules();
      try {
        const { value, end } = unpickle(view.bytes, at, rules);
        at = end;
        return { value, rules };
      } catch (error) {
        if (!(error instanceof PickleError && error.fault === "end")) throw error;
        if (await view.grow()) continue;
        if (view.bytes.length < handle.size)
          throw new PickleError("limit", `its pickles are longer than ${LONGEST_PICKLE} bytes`);
        throw error;
      }
    }
  };

  const { value: magic } = await next();
  if (magic !== MAGIC)
    throw refusal(
      "E-FILE-100",
      where,
      "is not a file of torch.save",
      "it is a Python pickle without the magic number of torch",
      "check that it is the weights file of the model; pickles of other programs are not read",
    );
  const { value: protocol } = await next();
  if (protocol !== PROTOCOL) throw new PickleError("damaged", `its protocol of torch is not ${PROTOCOL}`);
  const { value: machine } = await next();
  if (!(machine instanceof PickleDict) || machine.entries.get("little_endian") !== true)
    throw new PickleError("damaged", "it was not written by a little-endian machine");
  const { value: root, rules } = await next();
  const { value: keys } = await next();
  if (!(keys instanceof PickleList)) throw new PickleError("damaged", "it has no list of storages");

  const places = new Map<string, number>();
  for (const key of keys.items) {
    const storage = typeof key === "string" ? rules.storages.get(key) : undefined;
    if (storage === undefined || places.has(storage.key))
      throw new PickleError("storage", "its list of storages does not fit its tensors");
    const missing = () =>
      new PickleError("storage", `the file ends before storage ${JSON.stringify(storage.key)} does`);
    if (at + 8 > handle.size) throw missing();
    const head = at + 8 <= view.bytes.length ? view.bytes.slice(at, at + 8) : (await handle.read(at, 8)).slice();
    const count = new DataView(head.buffer).getBigInt64(0, true);
    const size = storage.dtype === null ? 1 : DTYPE_BITS[storage.dtype] / 8;
    if (count * BigInt(size) !== BigInt(storage.bytes))
      throw new PickleError(
        "storage",
        `storage ${JSON.stringify(storage.key)} has ${count} elements, not as described`,
      );
    at += 8;
    places.set(storage.key, at);
    at += storage.bytes;
    if (at > handle.size) throw missing();
  }
  for (const key of rules.storages.keys())
    if (!places.has(key)) throw new PickleError("storage", `storage ${JSON.stringify(key)} is missing`);
  return { root, rules, places };
}
