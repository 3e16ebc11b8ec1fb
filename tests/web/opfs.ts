// The browser's private file system (OPFS) seen from a test: what lies there, read, written and removed from the page's
// main thread, beside the page's own code.

import type { Page } from "playwright-core";

/** Every file below `folder` with its bytes, sorted by path; empty where the folder does not exist. */
export function listStored(page: Page, folder = ""): Promise<{ path: string; bytes: number }[]> {
  return page.evaluate(async (start) => {
    const files: { path: string; bytes: number }[] = [];
    const walk = async (handle: FileSystemDirectoryHandle, prefix: string): Promise<void> => {
      for await (const [name, child] of handle.entries()) {
        const path = prefix ? `${prefix}/${name}` : name;
        if (child.kind === "directory") await walk(child as FileSystemDirectoryHandle, path);
        else files.push({ path, bytes: (await (child as FileSystemFileHandle).getFile()).size });
      }
    };
    try {
      let handle = await navigator.storage.getDirectory();
      for (const part of start.split("/").filter(Boolean)) handle = await handle.getDirectoryHandle(part);
      await walk(handle, start);
    } catch (error) {
      if ((error as DOMException).name !== "NotFoundError") throw error;
    }
    return files.sort((a, b) => (a.path < b.path ? -1 : 1));
  }, folder);
}

/** The bytes of a stored file. */
export async function readStored(page: Page, path: string): Promise<Uint8Array> {
  const base64 = await page.evaluate(async (place) => {
    const parts = place.split("/");
    let handle = await navigator.storage.getDirectory();
    for (const part of parts.slice(0, -1)) handle = await handle.getDirectoryHandle(part);
    const file = await (await handle.getFileHandle(parts.at(-1)!)).getFile();
    const reader = new FileReader();
    return new Promise<string>((resolve, reject) => {
      reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    });
  }, path);
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

/** The text of a stored file. */
export async function readStoredText(page: Page, path: string): Promise<string> {
  return new TextDecoder().decode(await readStored(page, path));
}

/** Writes a file, with its folders. */
export async function writeStored(page: Page, path: string, bytes: Uint8Array | string): Promise<void> {
  const data = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  let binary = "";
  for (let i = 0; i < data.length; i += 0x8000) binary += String.fromCharCode(...data.subarray(i, i + 0x8000));
  await page.evaluate(
    async ([place, base64]) => {
      const parts = place!.split("/");
      let handle = await navigator.storage.getDirectory();
      for (const part of parts.slice(0, -1)) handle = await handle.getDirectoryHandle(part, { create: true });
      const file = await handle.getFileHandle(parts.at(-1)!, { create: true });
      const stream = await file.createWritable();
      await stream.write(Uint8Array.from(atob(base64!), (c) => c.charCodeAt(0)));
      await stream.close();
    },
    [path, btoa(binary)],
  );
}

/** Removes a file or a folder with all that is in it; what is not there is no error. */
export async function removeStored(page: Page, path: string): Promise<void> {
  await page.evaluate(async (place) => {
    const parts = place.split("/");
    try {
      let handle = await navigator.storage.getDirectory();
      for (const part of parts.slice(0, -1)) handle = await handle.getDirectoryHandle(part);
      await handle.removeEntry(parts.at(-1)!, { recursive: true });
    } catch (error) {
      if ((error as DOMException).name !== "NotFoundError") throw error;
    }
  }, path);
}
