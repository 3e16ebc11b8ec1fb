// Makes the page start without a network from its second load on, by a service worker that keeps the page's own files. In
// development there is none, because it would serve old code.

/** Registers the service worker of a built page; where that fails the page works all the same, with a network. */
export async function registerOffline(base: string = document.baseURI): Promise<void> {
  if (import.meta.env.DEV || !("serviceWorker" in navigator)) return;
  // It fetches every part of the page: not before this page has what it shows.
  if (document.readyState !== "complete") await new Promise((done) => addEventListener("load", done, { once: true }));
  await new Promise((done) => setTimeout(done, 1000));
  try {
    await navigator.serviceWorker.register(new URL("service_worker.js", base), { scope: new URL(".", base).pathname });
  } catch {
    // Refused in some private windows and on plain http.
  }
}
