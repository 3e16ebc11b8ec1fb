// Work that a slider asks for faster than it can be done: a request waits a moment, one is done at a time, and of those that
// came meanwhile only the newest is done next.

export interface Newest<T> {
  /** Asks for `value`; an earlier value that was not begun is forgotten. */
  ask(value: T): void;
  /** Forgets what was not begun, and lets no result through any more. */
  stop(): void;
}

export interface NewestOptions {
  /** Milliseconds without another request before the first is begun. */
  wait: number;
  /** Called when work begins and when nothing is left to do. */
  busy?: (busy: boolean) => void;
  failed?: (error: unknown) => void;
}

/** @param work done for a value; @param done called with its result unless `stop` was called */
export function newestWins<T, R>(
  work: (value: T) => Promise<R>,
  done: (result: R, value: T) => void,
  { wait, busy, failed }: NewestOptions,
): Newest<T> {
  let next: { value: T } | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isWorking = false;
  let isStopped = false;

  const begin = async () => {
    timer = undefined;
    if (isWorking || next === null) return;
    const { value } = next;
    next = null;
    isWorking = true;
    busy?.(true);
    try {
      const result = await work(value);
      if (!isStopped) done(result, value);
    } catch (error) {
      if (!isStopped) failed?.(error);
    }
    isWorking = false;
    if (next !== null && !isStopped) void begin();
    else busy?.(false);
  };

  return {
    ask(value) {
      if (isStopped) return;
      next = { value };
      clearTimeout(timer);
      timer = setTimeout(() => void begin(), wait);
    },
    stop() {
      isStopped = true;
      next = null;
      clearTimeout(timer);
    },
  };
}
