// Requests to a hub: the token goes to the hub alone and never along a redirect to another host, passing troubles are tried
// again with growing pauses, and what remains becomes a coded error.

import type { LongtailError } from "../base/errors.ts";
import { type HubContext, isPassing, refusedBy, unreachable } from "./hub_errors.ts";

export interface RequestSettings {
  fetch: typeof fetch;
  token: string | null;
  /** Attempts after the first that in a row bring nothing. */
  retries: number;
  /** Pause before the first of them; it doubles each time. */
  pauseMs: number;
  /** Longest time without an answer or a byte. */
  stallSeconds: number;
}

const MOST_REDIRECTS = 8;
const LONGEST_PAUSE = 30_000;

/** One request with its redirects; `signal` ends it. Throws what fetch throws where nothing answers. */
export async function request(
  url: string,
  headers: Readonly<Record<string, string>>,
  settings: Pick<RequestSettings, "fetch" | "token">,
  endpoint: string,
  signal: AbortSignal,
): Promise<Response> {
  const home = new URL(endpoint).origin;
  let place = new URL(url);
  for (let hop = 0; ; hop++) {
    // A range of a compressed body would be another range.
    const sent: Record<string, string> = { "accept-encoding": "identity", ...headers };
    if (place.origin === home && settings.token) sent["authorization"] = `Bearer ${settings.token}`;
    const response = await settings.fetch(place, {
      headers: sent,
      redirect: "manual",
      signal,
    });
    const next = response.headers.get("location");
    if (response.status < 300 || response.status > 399 || next === null) return response;
    await response.body?.cancel();
    if (hop === MOST_REDIRECTS) throw new Error(`more than ${MOST_REDIRECTS} redirects`);
    const target = new URL(next, place);
    if (place.protocol === "https:" && target.protocol !== "https:") throw new Error("a redirect leaves https");
    place = target;
  }
}

/** Ends a request that has been silent for too long; `alive` is called with every sign of life. */
export class Patience {
  readonly #controller = new AbortController();
  readonly #ms: number;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(seconds: number) {
    this.#ms = 1000 * seconds;
    this.alive();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  alive(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#controller.abort(new Error(`nothing came for ${this.#ms / 1000} seconds`));
    }, this.#ms);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** Counts attempts in a row that brought nothing, and waits between them. */
export class Attempts {
  readonly #settings: Pick<RequestSettings, "retries" | "pauseMs">;
  #failed = 0;

  constructor(settings: Pick<RequestSettings, "retries" | "pauseMs">) {
    this.#settings = settings;
  }

  succeeded(): void {
    this.#failed = 0;
  }

  /** Waits, or throws `error` where there were enough. @param after seconds that the other side asks for */
  async failed(error: LongtailError, after: number | null = null): Promise<void> {
    if (++this.#failed > this.#settings.retries) throw error;
    const own = this.#settings.pauseMs * 2 ** (this.#failed - 1);
    await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_PAUSE, Math.max(own, 1000 * (after ?? 0)))));
  }
}

/** Seconds of a `Retry-After` header, where it gives seconds. */
export function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}

/**
 * A `fetch` for the hub's own interface: answers are successes, everything else is thrown as a LongtailError.
 * @throws E-ENV-100 … 104, E-FILE-130 … 132
 */
export function interfaceFetch(settings: RequestSettings, context: HubContext): typeof fetch {
  return async (input, init) => {
    const attempts = new Attempts(settings);
    const url = input instanceof Request ? input.url : String(input);
    const headers = Object.fromEntries(new Headers(init?.headers));
    for (;;) {
      const patience = new Patience(settings.stallSeconds);
      let response: Response;
      try {
        response = await request(url, headers, settings, context.endpoint, patience.signal);
        // Small answers: read here, so that a cut connection is tried again as well.
        const body = await response.arrayBuffer();
        if (response.ok) return new Response(body, { status: response.status, headers: response.headers });
      } catch (error) {
        await attempts.failed(unreachable(error, context));
        continue;
      } finally {
        patience.end();
      }
      const refusal = refusedBy(response, context);
      if (!isPassing(response.status)) throw refusal;
      await attempts.failed(refusal, retryAfter(response));
    }
  };
}
