// Prepares the next batches while the device works on this one. Batches come in order, at most `ahead` are ready or under
// way, and one that fails throws at the step that needs it. How long each step had to wait is measured: in steady state a
// trainer should wait for the device, never for its data.

export interface PrefetchOptions {
  /** Batches prepared before they are asked for; 2 by default. */
  ahead?: number;
  /** The first step. */
  first?: number;
  /** Steps from this on are not prepared. */
  end?: number;
  /** A clock in milliseconds; the system's by default. */
  now?: () => number;
}

export interface Prefetched<T> {
  step: number;
  batch: T;
  /** Milliseconds that the caller waited for it. */
  stalled: number;
  /** Milliseconds that it took to prepare. */
  preparation: number;
}

interface Job<T> {
  result: Promise<{ batch: T; preparation: number } | { error: unknown }>;
}

export class Prefetcher<T> {
  /** Milliseconds waited in all, without the first batch, which nothing could have prepared. */
  stalled = 0;
  /** Steps taken. */
  taken = 0;
  readonly #prepare: (step: number) => Promise<T>;
  readonly #ahead: number;
  readonly #end: number;
  readonly #now: () => number;
  readonly #jobs = new Map<number, Job<T>>();
  #next: number;
  #closed = false;
  /** One is prepared at a time: they share the processor, and order keeps the nearest first. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(prepare: (step: number) => Promise<T>, options: PrefetchOptions = {}) {
    this.#prepare = prepare;
    this.#ahead = Math.max(0, options.ahead ?? 2);
    this.#next = options.first ?? 0;
    this.#end = options.end ?? Number.POSITIVE_INFINITY;
    this.#now = options.now ?? (() => performance.now());
    this.#fill();
  }

  /**
   * The batch of a step, which must be the one after the last taken (or any other, after which it goes on from there).
   * @throws what `prepare` threw for this step
   */
  async take(step: number): Promise<Prefetched<T>> {
    if (this.#closed) throw new Error("the prefetcher is closed");
    if (step !== this.#next) {
      this.#jobs.clear();
      this.#next = step;
    }
    const started = this.#now();
    const job = this.#jobs.get(step) ?? this.#start(step, true);
    this.#next = step + 1;
    const result = await job.result;
    this.#jobs.delete(step);
    const stalled = this.#now() - started;
    this.#fill();
    if ("error" in result) throw result.error;
    if (this.taken++ > 0) this.stalled += stalled;
    return { step, stalled, ...result };
  }

  /** Stops; what is under way is finished and forgotten. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#jobs.clear();
    await this.#tail;
  }

  #fill(): void {
    for (let step = this.#next; step < Math.min(this.#end, this.#next + this.#ahead); step++)
      if (!this.#jobs.has(step)) this.#start(step);
  }

  #start(step: number, isAwaited = false): Job<T> {
    const job = {} as Job<T>;
    this.#jobs.set(step, job);
    job.result = this.#tail.then(async () => {
      // The caller gives the device its work first; decoding would hold it up.
      if (!isAwaited) await new Promise((resolve) => setTimeout(resolve, 0));
      // A jump made this one useless.
      if (this.#closed || this.#jobs.get(step) !== job) return { error: new Error("the prefetcher went elsewhere") };
      const started = this.#now();
      try {
        const batch = await this.#prepare(step);
        return { batch, preparation: this.#now() - started };
      } catch (error) {
        return { error };
      }
    });
    this.#tail = job.result;
    return job;
  }
}
