// One writer for one folder: an advisory lock that the system takes back when its holder ends, however it ends, so that a
// run that was killed never has to be unlocked by hand. Deno alone offers it; elsewhere nothing is locked.

interface LockableFile {
  tryLockSync(exclusive: boolean): boolean;
  close(): void;
}

interface DenoFiles {
  openSync?(path: string, options: { read: boolean; write: boolean; create: boolean }): LockableFile;
}

/**
 * Locks a file, which is made where it is missing.
 * @returns how to unlock it, or null where another process (or another holder in this one) has the lock
 */
export function lockFile(path: string): (() => void) | null {
  const deno = (globalThis as { Deno?: DenoFiles }).Deno;
  const file = deno?.openSync?.(path, { read: true, write: true, create: true });
  if (!file || typeof file.tryLockSync !== "function") return () => file?.close();
  try {
    if (file.tryLockSync(true)) return () => file.close();
  } catch {
    // Some network file systems have no locks; a run there is as safe as without.
    return () => file.close();
  }
  file.close();
  return null;
}
