// What Vite adds to modules of the page.

interface ImportMeta {
  readonly env: { readonly DEV: boolean };
}

declare module "*.css" {}
