// The page without a network: keeps the page's own files (code, styles, the list of models), never the models, which lie in the
// browser's storage. The front page and the list of models come from the network while there is one, files whose name carries
// their hash from the cache. A new version is fetched whole into a cache of its own before it takes over at the next load.

/** What TypeScript's types of a page lack because service workers alone have it. */
interface Extendable extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Extendable {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}
interface Worker extends EventTarget {
  readonly registration: { readonly scope: string };
  readonly clients: {
    claim(): Promise<void>;
    matchAll(options: { type: "window"; includeUncontrolled: boolean }): Promise<readonly unknown[]>;
  };
  skipWaiting(): Promise<void>;
}

// Both are put in by the build (scripts/page_shell.mjs).
declare const LONGTAIL_SHELL: readonly string[];
declare const LONGTAIL_VERSION: string;

const worker = globalThis as unknown as Worker;
const PREFIX = "longtail-shell-";
const CACHE = PREFIX + LONGTAIL_VERSION;
const FRONT = "index.html";
/** These keep their names over versions. */
const CHANGING = new Set([FRONT, "assets.json"]);

/** Hosts that answer by origin or encoding say so; the content is the same. */
const MATCHING: CacheQueryOptions = { ignoreVary: true };

/** A request's path below the page; null where it is not of this page. */
function pathOf(url: string): string | null {
  const { scope } = worker.registration;
  const plain = url.split(/[?#]/)[0] ?? "";
  if (!plain.startsWith(scope)) return null;
  return plain.slice(scope.length) || FRONT;
}

const addressOf = (path: string) => new URL(path, worker.registration.scope).href;

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  // Past the browser's own cache for the names that stay, so that all files are of one version.
  const requests = LONGTAIL_SHELL.map(
    (path) => new Request(addressOf(path), { cache: CHANGING.has(path) ? "reload" : "default" }),
  );
  await cache.addAll(requests);
  // Pages of the version before find their parts in the cache of that version, which stays while they are open.
  await worker.skipWaiting();
}

/** Removes caches of versions before when no window is left that may still load a part from them. */
async function clean(): Promise<void> {
  if ((await worker.clients.matchAll({ type: "window", includeUncontrolled: true })).length > 0) return;
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
}

async function fromNetwork(request: Request, path: string): Promise<Response> {
  const kept = async () => (await caches.open(CACHE)).match(addressOf(path), MATCHING);
  try {
    const response = await fetch(request);
    // A host that is out of order is worth as much as none.
    return response.ok ? response : ((await kept()) ?? response);
  } catch (error) {
    const found = await kept();
    if (found) return found;
    throw error;
  }
}

worker.addEventListener("install", (event) => (event as Extendable).waitUntil(install()));
worker.addEventListener("activate", (event) => (event as Extendable).waitUntil(worker.clients.claim()));
worker.addEventListener("fetch", (event) => {
  const fetching = event as Fetching;
  const { request } = fetching;
  const path = request.method === "GET" ? pathOf(request.url) : null;
  if (path === null) return;
  if (CHANGING.has(path)) {
    fetching.respondWith(fromNetwork(request, path));
    if (path === FRONT) fetching.waitUntil(clean());
  } else if (path.startsWith("assets/") || LONGTAIL_SHELL.includes(path)) {
    // From any version's cache: a page of the version before may still load its parts.
    fetching.respondWith(caches.match(addressOf(path), MATCHING).then((kept) => kept ?? fetch(request)));
  }
});
