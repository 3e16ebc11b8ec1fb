// JPEG pictures (ITU-T T.81), decoded by jpeg-js. That library trusts its input, so the structure of the file is walked
// over first: sizes, samplings, number of scans, the amount of coded data and the end marker are checked before memory or
// time is spent, and what it cannot decode (CMYK, 12 bits, arithmetic and lossless coding) is refused by name.

import { decode } from "jpeg-js";
import { exifOrientation } from "./exif.ts";

/** What is wrong with the file; the caller adds its name and a code. */
export class JpegError extends Error {
  /** The colours are CMYK, which has its own advice. */
  readonly isCmyk: boolean;
  constructor(message: string, options?: ErrorOptions & { isCmyk?: boolean }) {
    super(message, options);
    this.isCmyk = options?.isCmyk ?? false;
  }
}

export interface JpegFacts {
  /** As stored, before the orientation is applied. */
  width: number;
  height: number;
  components: 1 | 3;
  progressive: boolean;
  /** Exif orientation, 1 … 8. */
  orientation: number;
}

interface Component {
  id: number;
  h: number;
  v: number;
}

interface Frame {
  width: number;
  height: number;
  progressive: boolean;
  components: Component[];
}

/** Encoders write about ten scans for each component of a progressive picture; hostile files write thousands. */
const MOST_SCANS = 24;
const EXIF = [0x45, 0x78, 0x69, 0x66, 0, 0];
const CODINGS: Readonly<Record<number, string>> = {
  195: "lossless",
  197: "hierarchical",
  198: "hierarchical",
  199: "hierarchical",
  201: "arithmetic",
  202: "arithmetic",
  203: "arithmetic",
  205: "arithmetic",
  206: "arithmetic",
  207: "arithmetic",
};

/**
 * Size, kind and orientation of a JPEG; walks over its whole structure without decoding it, in time proportional to the
 * file and with no memory.
 * @throws JpegError cut off, damaged, or of a kind that is not decoded
 */
export function readJpegStructure(bytes: Uint8Array): JpegFacts {
  if (bytes.length === 0) throw new JpegError("the file is empty");
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) throw new JpegError("it does not begin like a JPEG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let frame: Frame | null = null;
  let orientation = 1;
  let codedBytes = 0;
  let scannedBlocks = 0;
  for (let at = 2; ; ) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at++;
    if (at + 2 > bytes.length) throw new JpegError("the file ends before its end marker");
    if (bytes[at] !== 0xff || bytes[at + 1] === 0) throw new JpegError("there is no marker where one must be");
    const marker = bytes[at + 1]!;
    at += 2;
    if (marker === 0xd9) break;
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    if (at + 2 > bytes.length) throw new JpegError("the file ends before its end marker");
    const length = view.getUint16(at);
    if (length < 2 || at + length > bytes.length) throw new JpegError("the file ends inside a segment");
    const segment = bytes.subarray(at + 2, at + length);
    at += length;
    if (CODINGS[marker]) throw new JpegError(`it uses ${CODINGS[marker]} coding, which is not read`);
    if (marker === 0xdc) throw new JpegError("its height comes after the picture, which is not read");
    if (marker === 0xe1 && EXIF.every((byte, i) => segment[i] === byte))
      orientation = exifOrientation(segment.subarray(6));
    if (marker >= 0xc0 && marker <= 0xc2) {
      if (frame !== null) throw new JpegError("it holds two frames");
      frame = readFrame(segment, marker === 0xc2);
    }
    if (marker !== 0xda) continue;
    if (frame === null) throw new JpegError("a scan comes before the frame");
    scannedBlocks += scanBlocks(frame, segment);
    if (scannedBlocks > MOST_SCANS * allBlocks(frame)) throw new JpegError("it holds more scans than encoders write");
    const end = codedEnd(bytes, at);
    codedBytes += end - at;
    at = end;
  }
  if (frame === null || codedBytes === 0) throw new JpegError("it holds no picture");
  // A block takes one bit at least, two where its other coefficients are coded with it.
  const leastBits = allBlocks(frame) * (frame.progressive ? 1 : 2);
  if (codedBytes * 8 < leastBits)
    throw new JpegError(`its ${codedBytes} bytes of data cannot hold ${frame.width} x ${frame.height} pixels`);
  const { width, height, progressive } = frame;
  return { width, height, progressive, orientation, components: frame.components.length as 1 | 3 };
}

function readFrame(segment: Uint8Array, progressive: boolean): Frame {
  if (segment.length < 6) throw new JpegError("its frame is too short");
  const [precision, h1, h0, w1, w0, count] = segment;
  const [height, width] = [(h1! << 8) | h0!, (w1! << 8) | w0!];
  if (precision !== 8) throw new JpegError(`it has ${precision} bits a channel, of which only 8 are read`);
  if (width === 0 || height === 0) throw new JpegError(`its size is ${width} x ${height}`);
  if (count === 4) throw new JpegError("its colours are CMYK, for print", { isCmyk: true });
  if (count !== 1 && count !== 3) throw new JpegError(`it has ${count} colour components`);
  if (segment.length < 6 + 3 * count) throw new JpegError("its frame is too short");
  const components = Array.from({ length: count }, (_, i) => {
    const [id, sampling, table] = segment.subarray(6 + 3 * i, 9 + 3 * i);
    const [h, v] = [sampling! >> 4, sampling! & 15];
    if (h < 1 || h > 4 || v < 1 || v > 4 || table! > 3) throw new JpegError("its samplings are not valid");
    return { id: id!, h, v };
  });
  if (new Set(components.map((component) => component.id)).size !== count)
    throw new JpegError("two of its components have one name");
  return { width, height, progressive, components };
}

function blocksOf(frame: Frame, { h, v }: Component): number {
  const most = (side: "h" | "v") => Math.max(...frame.components.map((component) => component[side]));
  return Math.ceil(frame.width / (8 * most("h"))) * h * (Math.ceil(frame.height / (8 * most("v"))) * v);
}

const allBlocks = (frame: Frame) => frame.components.reduce((sum, component) => sum + blocksOf(frame, component), 0);

/** Blocks that one scan goes through. */
function scanBlocks(frame: Frame, segment: Uint8Array): number {
  const count = segment[0] ?? 0;
  if (count < 1 || count > 4 || segment.length < 4 + 2 * count) throw new JpegError("a scan's header is not valid");
  let blocks = 0;
  for (let i = 0; i < count; i++) {
    const component = frame.components.find(({ id }) => id === segment[1 + 2 * i]);
    if (component === undefined) throw new JpegError("a scan names a component that the frame does not have");
    blocks += blocksOf(frame, component);
  }
  const [start, end] = [segment[1 + 2 * count]!, segment[2 + 2 * count]!];
  if (frame.progressive && (start > end || end > 63)) throw new JpegError("a scan's header is not valid");
  return blocks;
}

/** Where coded data ends: at a marker that is neither a stuffed zero nor a restart. */
function codedEnd(bytes: Uint8Array, from: number): number {
  for (let at = from; ; at++) {
    at = bytes.indexOf(0xff, at);
    if (at < 0 || at + 1 >= bytes.length) throw new JpegError("the file ends inside its picture data");
    const next = bytes[at + 1]!;
    if (next !== 0 && next !== 0xff && (next < 0xd0 || next > 0xd7)) return at;
  }
}

/**
 * Decodes to RGB, 8 bits. The orientation is not applied.
 * @throws JpegError
 */
export function decodeJpegBytes(bytes: Uint8Array): JpegFacts & { data: Uint8Array } {
  const facts = readJpegStructure(bytes);
  try {
    const { width, height, data } = decode(bytes, {
      useTArray: true,
      formatAsRGBA: false,
      tolerantDecoding: false,
      // The caller has limited the number of pixels; jpeg-js takes up to 32 bytes for each.
      maxResolutionInMP: Number.POSITIVE_INFINITY,
      maxMemoryUsageInMB: Number.POSITIVE_INFINITY,
    });
    if (width !== facts.width || height !== facts.height || data.length !== width * height * 3)
      throw new JpegError("the decoded picture has another size than its header says");
    return { ...facts, data: data as Uint8Array };
  } catch (error) {
    if (error instanceof JpegError) throw error;
    throw new JpegError(`its picture data is damaged (${(error as Error).message})`, { cause: error });
  }
}
