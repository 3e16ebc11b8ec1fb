// Dawn's binding for JavaScript asks for finished work again and again through `setImmediate` as long as a promise is
// pending. That keeps one core busy and holds Dawn's lock; on an adapter that computes on the CPU it makes waiting several
// times slower than the work. Here a long wait asks once a millisecond instead; a short one, as on a GPU, stays as it was.

/** Milliseconds of a wait in which Dawn may ask as often as it likes. */
const EAGER_MS = 0.5;
/** A pause this long between two questions begins a new wait. */
const NEW_WAIT_MS = 5;

let patient = false;

/** Slows down long waits of this process. All contenders of a benchmark that use this Dawn get the same. */
export function waitPatiently(): void {
  if (patient) return;
  patient = true;
  const immediate = globalThis.setImmediate;
  let began = 0;
  let last = Number.NEGATIVE_INFINITY;
  const paced = (callback: (...values: unknown[]) => void, ...values: unknown[]) => {
    const now = performance.now();
    if (now - last > NEW_WAIT_MS) began = now;
    last = now;
    return now - began < EAGER_MS ? immediate(callback, ...values) : setTimeout(callback, 1, ...values);
  };
  globalThis.setImmediate = paced as unknown as typeof setImmediate;
}
