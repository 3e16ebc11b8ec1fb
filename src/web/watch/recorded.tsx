// A recorded run.

export function RecordedRun() {
  return <p class="quiet">Nothing here yet.</p>;
}
