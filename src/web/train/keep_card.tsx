// Content of a card of the Train mode.

export function KeepCard() {
  return <p class="quiet">Nothing here yet.</p>;
}
