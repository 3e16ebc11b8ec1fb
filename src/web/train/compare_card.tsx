// Content of a card of the Train mode.

export function CompareCard() {
  return <p class="quiet">Nothing here yet.</p>;
}
