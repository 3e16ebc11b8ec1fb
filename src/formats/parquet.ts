// Tables of pictures and captions as parquet files, as data sets are published. The description at the end of the file is
// read by hyparquet, after its lengths have been checked; row groups are read one at a time, and in them only the columns
// that are asked for.

import { LongtailError, nearestName } from "../base/errors.ts";
import type { FileHandle, FileStore } from "../base/files.ts";
import {
  type Decompress,
  guardZstd,
  gunzipPage,
  MOST_ROWS,
  ParquetError,
  readDictionary,
  readPageHeader,
  readValues,
} from "./parquet_pages.ts";
import { parseThrift, ThriftError } from "./thrift.ts";

export interface ParquetColumns {
  /** Column with the picture's bytes, or with a structure of `bytes` and `path`; guessed where it is not given. */
  image?: string | undefined;
  /** Column with the caption; guessed where it is not given, and absent where there is none. */
  caption?: string | undefined;
}

export interface ParquetRow {
  image: Uint8Array | null;
  /** The picture's name where the table has one. */
  path: string | null;
  /** UTF-8 as stored. */
  caption: Uint8Array | null;
}

const IMAGE_NAMES = ["image", "img", "picture", "image_bytes", "jpg", "png"];
const CAPTION_NAMES = ["text", "caption", "prompt", "captions", "description"];
const LARGEST_FOOTER = 64 * 1024 * 1024;
const LARGEST_GROUP = 1024 * 1024 * 1024;
/** A page's header can hold statistics, so the first look may be too short. */
const HEADER_LOOKS = [4096, 65_536, 4 * 1024 * 1024];
/** Best ratio of each compression; pages that announce more lie, and no memory is taken for them. */
const BEST_RATIOS: Readonly<Record<string, number>> = {
  UNCOMPRESSED: 1,
  SNAPPY: 64,
  GZIP: 1032,
  LZ4: 256,
  LZ4_RAW: 256,
};

interface Leaf {
  path: string[];
  /** How many nodes of the path may be absent. */
  levels: number;
  repeated: boolean;
  isBytes: boolean;
}

interface Chunk {
  offset: number;
  length: number;
  values: number;
  codec: string;
}

export class ParquetPictures {
  /** Rows of each row group. */
  readonly groups: readonly number[];
  /** Names of the columns that are read. */
  readonly columns: { readonly image: string; readonly caption: string | null };
  readonly #handle: FileHandle;
  readonly #where: string;
  readonly #chunks: readonly ReadonlyMap<string, Chunk>[];
  readonly #leaves: { image: Leaf; path: Leaf | null; caption: Leaf | null };

  private constructor(
    handle: FileHandle,
    where: string,
    groups: number[],
    chunks: ReadonlyMap<string, Chunk>[],
    leaves: { image: Leaf; path: Leaf | null; caption: Leaf | null },
  ) {
    this.#handle = handle;
    this.#where = where;
    this.groups = groups;
    this.#chunks = chunks;
    this.#leaves = leaves;
    this.columns = { image: leaves.image.path[0]!, caption: leaves.caption?.path[0] ?? null };
  }

  /** @throws E-FILE-085 it is not a whole parquet file, E-FILE-086 a column is missing or of another type */
  static async open(files: FileStore, path: string, columns: ParquetColumns = {}): Promise<ParquetPictures> {
    const handle = await files.open(path);
    try {
      return await coded(path, async () => {
        const { schema, row_groups } = await readFooter(handle);
        const leaves = leavesOf(schema);
        const chosen = chooseLeaves(leaves, columns, path);
        const groups = row_groups.map((group) => whole(group.num_rows, MOST_ROWS, "rows of a group"));
        const chunks = row_groups.map((group) => chunksOf(group.columns, handle.size));
        return new ParquetPictures(handle, path, groups, chunks, chosen);
      });
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** The rows of one group, in order. @throws E-FILE-085 damaged, or larger than is read */
  async readGroup(index: number): Promise<ParquetRow[]> {
    return coded(this.#where, async () => {
      const column = async (leaf: Leaf | null): Promise<(Uint8Array | null)[] | null> => {
        if (leaf === null) return null;
        const name = leaf.path.join(".");
        const chunk = this.#chunks[index]!.get(name);
        if (chunk === undefined) throw new ParquetError(`row group ${index} has no column ${name}`);
        const values = await readColumn(this.#handle, chunk, leaf.levels);
        if (values.length !== this.groups[index])
          throw new ParquetError(`column ${name} has ${values.length} values in a group of ${this.groups[index]} rows`);
        return values;
      };
      const images = (await column(this.#leaves.image))!;
      const paths = await column(this.#leaves.path);
      const captions = await column(this.#leaves.caption);
      const utf8 = new TextDecoder();
      return images.map((image, i) => {
        const path = paths?.[i];
        return { image, path: path ? utf8.decode(path.subarray(0, 4096)) : null, caption: captions?.[i] ?? null };
      });
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** What of hyparquet's metadata is used. */
interface Metadata {
  schema: { name: string; type?: string; num_children?: number; repetition_type?: string }[];
  row_groups: {
    num_rows: unknown;
    columns: { file_path?: string; crypto_metadata?: unknown; meta_data?: ChunkData }[];
  }[];
}

interface ChunkData {
  path_in_schema: string[];
  codec: string;
  num_values: unknown;
  total_compressed_size: unknown;
  data_page_offset: unknown;
  dictionary_page_offset?: unknown;
}

async function readFooter(handle: FileHandle): Promise<Metadata> {
  if (handle.size < 12) throw new ParquetError("it is too short");
  const tail = await handle.read(handle.size - 8, 8);
  if (new TextDecoder("latin1").decode(tail.subarray(4)) !== "PAR1")
    throw new ParquetError("it does not end with PAR1");
  const length = new DataView(tail.buffer, tail.byteOffset).getUint32(0, true);
  if (length > handle.size - 12 || length > LARGEST_FOOTER)
    throw new ParquetError(`its description announces ${length} bytes`);
  const footer = await handle.read(handle.size - 8 - length, length + 8);
  try {
    parseThrift(footer.subarray(0, length));
  } catch (error) {
    if (error instanceof ThriftError) throw new ParquetError(error.message, { cause: error });
    throw error;
  }
  const { parquetMetadata } = await import("hyparquet");
  try {
    return parquetMetadata(footer.slice().buffer, { geoparquet: false }) as unknown as Metadata;
  } catch (error) {
    throw new ParquetError(`its description is damaged (${(error as Error).message})`, { cause: error });
  }
}

/** A count or place of the description as a number. */
function whole(value: unknown, most: number, what: string): number {
  const number = typeof value === "bigint" || typeof value === "number" ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number) || number < 0 || number > most)
    throw new ParquetError(`it announces ${String(value)} ${what}, at most ${most} are read`);
  return number;
}

/** Columns that hold values, from the tree written as a list, parents first. */
function leavesOf(schema: Metadata["schema"]): Leaf[] {
  const leaves: Leaf[] = [];
  let at = 1;
  const walk = (count: number, path: string[], levels: number, repeated: boolean) => {
    if (path.length > 16) throw new ParquetError("its columns are nested too deeply");
    for (let i = 0; i < count; i++) {
      const node = schema[at++];
      if (typeof node?.name !== "string") throw new ParquetError("its list of columns breaks off");
      const isRepeated = repeated || node.repetition_type === "REPEATED";
      const own = levels + (node.repetition_type === "REQUIRED" ? 0 : 1);
      const inner = [...path, node.name];
      if (node.num_children !== undefined && node.num_children > 0) walk(node.num_children, inner, own, isRepeated);
      else leaves.push({ path: inner, levels: own, repeated: isRepeated, isBytes: node.type === "BYTE_ARRAY" });
    }
  };
  walk(Math.min(schema[0]?.num_children ?? 0, schema.length), [], 0, false);
  return leaves;
}

function chooseLeaves(leaves: readonly Leaf[], columns: ParquetColumns, where: string) {
  const tops = [...new Set(leaves.map((leaf) => leaf.path[0]!))];
  const pick = (asked: string | undefined, guesses: readonly string[], what: string): string | null => {
    const found = asked ?? guesses.find((name) => tops.some((top) => top.toLowerCase() === name));
    const name = found === undefined ? null : tops.find((top) => top === found || top.toLowerCase() === found);
    if (name) return name;
    if (asked === undefined && what === "caption") return null;
    const near = asked === undefined ? null : nearestName(asked, tops);
    throw badColumn(where, `there is no ${what} column${asked === undefined ? "" : ` ${asked}`}`, [
      near ? `did you mean ${near}?` : "",
      `the columns are ${
        tops
          .slice(0, 20)
          .map((top) => top.slice(0, 60))
          .join(", ") || "none"
      }`,
    ]);
  };
  const usable = (leaf: Leaf | undefined, what: string, name: string): Leaf => {
    if (leaf?.isBytes && !leaf.repeated) return leaf;
    throw badColumn(where, `the ${what} column ${name} cannot be used`, [
      leaf?.repeated ? "it holds lists" : "it holds neither bytes nor text",
    ]);
  };
  const imageName = pick(columns.image, IMAGE_NAMES, "image")!;
  const under = (name: string, child?: string) =>
    leaves.find((leaf) => leaf.path.join("\n") === (child === undefined ? name : `${name}\n${child}`));
  const image = usable(under(imageName) ?? under(imageName, "bytes"), "image", imageName);
  const path = image.path.length === 2 ? under(imageName, "path") : under("file_name");
  const captionName = pick(columns.caption, CAPTION_NAMES, "caption");
  return {
    image,
    path: path?.isBytes && !path.repeated ? path : null,
    caption: captionName === null ? null : usable(under(captionName), "caption", captionName),
  };
}

function badColumn(where: string, what: string, why: string[]): LongtailError {
  return new LongtailError("E-FILE-086", {
    what,
    where,
    why: why.filter((part) => part !== "").join("; "),
    fix: "name the column of the pictures (bytes) with image_column and that of the captions (text) with caption_column in [[data.sets]]",
  });
}

function chunksOf(columns: Metadata["row_groups"][number]["columns"], fileSize: number): Map<string, Chunk> {
  const chunks = new Map<string, Chunk>();
  for (const { file_path: file, crypto_metadata: crypto, meta_data: data } of columns) {
    // Columns in other files and encrypted ones are absent; it matters only if they are asked for.
    if (data === undefined || file || crypto || !Array.isArray(data.path_in_schema)) continue;
    const places = [data.data_page_offset, data.dictionary_page_offset].filter((place) => place !== undefined);
    const offset = Math.min(...places.map((place) => whole(place, fileSize, "as the place of a column")));
    const length = whole(data.total_compressed_size, Math.min(fileSize, LARGEST_GROUP), "bytes of a column");
    if (offset + length > fileSize) throw new ParquetError("a column lies beyond the end of the file");
    const values = whole(data.num_values, Number.MAX_SAFE_INTEGER, "values of a column");
    chunks.set(data.path_in_schema.join("."), { offset, length, values, codec: data.codec });
  }
  return chunks;
}

async function readColumn(handle: FileHandle, chunk: Chunk, levels: number): Promise<(Uint8Array | null)[]> {
  if (chunk.values > MOST_ROWS) throw new ParquetError(`a column announces ${chunk.values} values`);
  const decompress = await decompressorOf(chunk.codec);
  const end = chunk.offset + chunk.length;
  const found: (Uint8Array | null)[] = [];
  let dictionary: Uint8Array[] | null = null;
  let held = 0;
  for (let at = chunk.offset; at < end && found.length < chunk.values; ) {
    const header = await headerAt(handle, at, end);
    at += header.headerLength;
    if (at + header.packed > end) throw new ParquetError("a page is longer than its column");
    const body = await handle.read(at, header.packed);
    at += header.packed;
    held += header.size;
    if (held > LARGEST_GROUP) throw new ParquetError("a row group holds more than 1 GB");
    if (header.kind === "dictionary") dictionary = await readDictionary(header, body, decompress);
    else if (header.kind !== "other") {
      if (found.length + header.values > chunk.values)
        throw new ParquetError("a column holds more values than it announces");
      for (const value of await readValues(header, body, levels, dictionary, decompress)) found.push(value);
    }
  }
  return found;
}

async function headerAt(handle: FileHandle, at: number, end: number) {
  for (const look of HEADER_LOOKS) {
    const bytes = await handle.read(at, Math.min(look, end - at));
    try {
      return readPageHeader(bytes);
    } catch (error) {
      if (!(error instanceof ParquetError) || bytes.length === end - at || look === HEADER_LOOKS.at(-1)) throw error;
    }
  }
  throw new ParquetError("a page has no header");
}

async function decompressorOf(codec: string): Promise<Decompress> {
  const guard = (packed: Uint8Array, size: number) => {
    const ratio = BEST_RATIOS[codec];
    if (ratio !== undefined && size > packed.length * ratio + 1024)
      throw new ParquetError(`a page of ${packed.length} bytes announces ${size}`);
  };
  if (codec === "UNCOMPRESSED") return (packed) => packed;
  if (codec === "GZIP") return (packed, size) => gunzipPage(packed, size);
  if (codec === "SNAPPY") {
    const { snappyUncompress } = await import("hyparquet");
    return (packed, size) => {
      guard(packed, size);
      const out = new Uint8Array(size);
      snappyUncompress(packed, out);
      return out;
    };
  }
  if (!["ZSTD", "BROTLI", "LZ4", "LZ4_RAW"].includes(codec))
    throw new ParquetError(`compression ${String(codec).slice(0, 20)} is not read`);
  const { compressors } = await import("hyparquet-compressors");
  const work = compressors[codec as "ZSTD"]!;
  return (packed, size) => {
    guard(packed, size);
    if (codec === "ZSTD") guardZstd(packed, size);
    return work(packed, size);
  };
}

async function coded<T>(where: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ParquetError)) throw error;
    throw new LongtailError("E-FILE-085", {
      what: "the parquet file cannot be read",
      where,
      why: error.message,
      fix: "fetch or write the file again, with plain or dictionary encoding",
      cause: error,
    });
  }
}
