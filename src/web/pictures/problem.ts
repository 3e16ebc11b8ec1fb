// Why a run cannot start with the pictures as they are. In a file of its own, so that the Start button can ask without loading
// the pictures' code: that code writes it.

import { signal } from "@preact/signals";

/** The end of a sentence, `write a caption for 2 pictures`, or null. */
export const pictureProblem = signal<string | null>(null);
