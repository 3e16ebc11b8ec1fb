// The long tail.

export default function LongTailMode() {
  return <p class="quiet">Nothing here yet.</p>;
}
