// Content of a card of the Train mode.

export function PicturesCard() {
  return <p class="quiet">Nothing here yet.</p>;
}
