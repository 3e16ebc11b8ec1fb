// The events of a run, newest first: checkpoints, messages, warnings and errors with their codes.

import { duration } from "../../evaluation/format.ts";
import type { NoteView } from "../run_view.ts";

/** Older ones are in the log file. */
const SHOWN = 60;

/** A run that was stopped by hand ends with this; it is not a failure. */
const STOPPED = "E-RUN-001";

export function EventList({ notes, began }: { notes: readonly NoteView[]; began: number | null }) {
  if (notes.length === 0) return <p class="small quiet">None yet.</p>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable with the keyboard
    <ol class="events plain-list" tabIndex={0} aria-label="Events, newest first">
      {notes
        .slice(-SHOWN)
        .reverse()
        .map(({ t, kind, code, text }, i) => (
          <li key={notes.length - i} class={`event event-${code === STOPPED ? "message" : kind}`}>
            <time>{duration(Math.max(0, t - (began ?? t)))}</time>
            <span>{code === STOPPED ? "stopped by hand and saved" : `${heading(kind, code)}${text}`}</span>
          </li>
        ))}
    </ol>
  );
}

/** The texts of errors begin with their code. */
const heading = (kind: NoteView["kind"], code?: string): string =>
  kind === "warning" ? `Warning ${code ?? ""}: ` : kind === "error" ? "Error " : "";
