// Drops and pastes anywhere on the page while the Train mode is shown: a picture that misses the drop zone by a finger's width
// would otherwise replace the page.

import { signal } from "@preact/signals";
import { filesOfDrop, filesOfPaste } from "./incoming.ts";
import { addFiles, ownSet } from "./own_set.ts";

/** Files are held over the page. */
export const dragging = signal(false);

/** Other modes take drops of their own, and a mode that was opened goes on living behind them. */
const isShown = () => document.getElementById("panel-train")?.hidden !== true;

const holdsFiles = (event: DragEvent) => isShown() && (event.dataTransfer?.types.includes("Files") ?? false);

/** Listens on the document; returns the way to stop. */
export function listenForFiles(): () => void {
  let leaving: ReturnType<typeof setTimeout> | undefined;
  const over = (event: DragEvent) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    clearTimeout(leaving);
    dragging.value = true;
  };
  const leave = () => {
    // Every border between two elements is left too; "over" follows at once where the pointer is still on the page.
    clearTimeout(leaving);
    leaving = setTimeout(() => {
      dragging.value = false;
    }, 120);
  };
  const drop = async (event: DragEvent) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    dragging.value = false;
    const { files, cut } = await filesOfDrop(event.dataTransfer!);
    await addFiles(files, cut);
  };
  const paste = (event: ClipboardEvent) => {
    if (!event.clipboardData || !isShown()) return;
    const files = filesOfPaste(event.clipboardData, (ownSet.value?.pictures.length ?? 0) + 1);
    if (files.length === 0) return;
    event.preventDefault();
    void addFiles(files);
  };
  const dropped = (event: DragEvent) => void drop(event);
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", leave);
  document.addEventListener("drop", dropped);
  document.addEventListener("paste", paste);
  return () => {
    clearTimeout(leaving);
    dragging.value = false;
    document.removeEventListener("dragover", over);
    document.removeEventListener("dragleave", leave);
    document.removeEventListener("drop", dropped);
    document.removeEventListener("paste", paste);
  };
}
