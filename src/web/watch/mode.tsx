// A watched run.

export default function WatchMode() {
  return <p class="quiet">Nothing here yet.</p>;
}
