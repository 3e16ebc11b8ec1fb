// What screen readers hear of a run: one sentence now and then, instead of every number that changes.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

/** Seconds between two announcements. */
const SPOKEN_EVERY = 5;

/** Says `sentence` at once, again where one of `about` is another, and every few seconds while `live`. */
export function Spoken({ sentence, about, live }: { sentence(): string; about: readonly unknown[]; live: boolean }) {
  const text = useSignal("");
  useEffect(() => {
    const say = () => {
      text.value = sentence();
    };
    say();
    if (!live) return;
    const timer = setInterval(say, SPOKEN_EVERY * 1000);
    return () => clearInterval(timer);
  }, [...about, live]);
  return (
    <p class="visually-hidden" aria-live="polite">
      {text.value}
    </p>
  );
}
