// What a file is that is not what its name says. Downloads end as web pages or Git LFS pointers so often that a message
// which names them saves an hour.

const text = (head: Uint8Array) => new TextDecoder("latin1").decode(head.subarray(0, 64));

/**
 * What the first bytes of a file show, as «it is …», or null where they show nothing known.
 * @param head the first 16 bytes or more, fewer where the file is shorter
 */
export function fileKind(head: Uint8Array): string | null {
  if (head.length === 0) return "it is empty";
  const start = text(head);
  if (/^\s*<(?:!doctype|html|\?xml|head|body)/i.test(start)) return "it is a web page, not a model";
  if (start.startsWith("version https://git-lfs")) return "it is a Git LFS pointer; the model itself was not fetched";
  if (start.startsWith("PK\x03\x04"))
    return "it is a zip archive, as torch.save writes .pt, .pth, .ckpt and .bin files";
  if (start.startsWith("GGUF")) return "it is a GGUF file";
  if (start.startsWith("\x89HDF\r\n")) return "it is an HDF5 file";
  if (start.startsWith("\x93NUMPY")) return "it is a NumPy array";
  if (start.startsWith("\x1f\x8b")) return "it is gzip data; unpack it first";
  if (/^\x80[\x02-\x05]/.test(start)) return "it is a Python pickle";
  // The header of safetensors: its length as 8 bytes, then JSON.
  if (head.length >= 9 && start[8] === "{" && head[5] === 0 && head[6] === 0 && head[7] === 0)
    return "it is a safetensors file";
  if (/^\s*[{[]/.test(start)) return "it is JSON text";
  return null;
}
