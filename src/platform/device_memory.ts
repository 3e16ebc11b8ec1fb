// Device memory as the operating system sees it, without asking WebGPU. Mesa's CPU adapter (lavapipe) takes the memory of
// its devices from one anonymous file, whose pages the kernel counts; pages of the program, of compiled kernels and of the
// JavaScript heap lie elsewhere. Memory that was given back is used again but stays counted, so the number is a peak.

import { readdirSync, readlinkSync, statSync } from "node:fs";

/** The name that Mesa gives to the file. */
const DEVICE_FILE = "/memfd:allocation fd";
/** What the kernel counts a file's pages in. */
const BLOCK_BYTES = 512;

/**
 * Bytes of memory that the software adapters of this process hold (or of another one's by its process number); null where
 * the system or the driver does not show them.
 */
export function softwareDeviceBytes(processId: number | "self" = "self"): number | null {
  const folder = `/proc/${processId}/fd`;
  const files = new Map<number, number>();
  try {
    for (const name of readdirSync(folder)) {
      const path = `${folder}/${name}`;
      try {
        if (!readlinkSync(path).startsWith(DEVICE_FILE)) continue;
        const { ino, blocks } = statSync(path);
        files.set(ino, blocks * BLOCK_BYTES);
      } catch {
        // Closed since the folder was listed, as the listing itself is.
      }
    }
  } catch {
    return null;
  }
  return files.size === 0 ? null : [...files.values()].reduce((a, b) => a + b, 0);
}
