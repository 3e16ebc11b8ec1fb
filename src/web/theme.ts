// Light or dark: as the system says, or as was chosen here and remembered.

import { signal } from "@preact/signals";
import { recall, remember } from "./small_state.ts";

export type Theme = "light" | "dark";

const system = () => globalThis.matchMedia?.("(prefers-color-scheme: dark)");

/** What is shown. */
export const theme = signal<Theme>(system()?.matches ? "dark" : "light");

let chosen: Theme | null = null;

function show(next: Theme): void {
  theme.value = next;
  if (chosen) document.documentElement.dataset.theme = next;
}

/** Follows the system until something was chosen. */
export function startTheme(): void {
  system()?.addEventListener("change", ({ matches }) => {
    if (!chosen) show(matches ? "dark" : "light");
  });
  void recall("theme").then((remembered) => {
    if (!remembered) return;
    chosen = remembered;
    show(remembered);
  });
}

export function toggleTheme(): void {
  chosen = theme.value === "dark" ? "light" : "dark";
  show(chosen);
  void remember("theme", chosen);
}
