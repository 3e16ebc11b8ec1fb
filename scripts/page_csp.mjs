// A Vite plugin for development: the page's Content-Security-Policy stands in index.html and goes out with every build as it
// is; Vite's own client needs style elements and a web socket while it serves, and only then they are allowed.

export const pageCsp = () => ({
  name: "page-csp",
  apply: "serve",
  transformIndexHtml: (html) =>
    html
      .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
      .replace("connect-src 'self'", "connect-src 'self' ws:"),
});
