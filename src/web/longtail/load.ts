// Brings in what the long-tail mode shows: the catalogue when the mode or an alignment's panel is first seen, sheets of pictures
// when a picture of theirs is. They are files that come with the page, checked against its manifest.

import { signal } from "@preact/signals";
import { AssetFiles } from "../files/assets.ts";
import { wireError } from "../store.ts";
import { FOLDER, loadCatalogue } from "./catalogue.ts";
import { catalogue, catalogueError, sheet } from "./state.ts";

/** Style whose sheet the map shows: the one that has a picture of every concept. */
const MAP_STYLE = "noto";

let files: AssetFiles | null = null;
/** Kept in memory: the browser's own cache has the bytes. */
const assets = () => {
  files ??= new AssetFiles({ base: new URL("./", document.baseURI).href, store: null });
  return files;
};

let loading = false;

/** Starts to load the catalogue where that has not been done; a failure is told in `catalogueError` and can be tried again. */
export function ensureCatalogue(): void {
  catalogueError.value = null;
  if (loading || catalogue.value) return;
  loading = true;
  load()
    .catch((error: unknown) => {
      catalogueError.value = wireError(error).what;
    })
    .finally(() => {
      loading = false;
    });
}

async function load(): Promise<void> {
  catalogue.value = await loadCatalogue((path) => assets().readText(path));
}

/** Decodes the sheet of the map; after the catalogue. */
export async function ensureSheet(): Promise<void> {
  const found = catalogue.value;
  if (!found || sheet.value) return;
  const name = found.concepts.map((c) => c.cells.get(MAP_STYLE)?.sheet).find((path) => path !== undefined);
  const bitmap = await createImageBitmap(await picture(`${FOLDER}/${name}`));
  const cells = found.concepts.map((c) => c.cells.get(MAP_STYLE) ?? { column: 0, row: 0 });
  sheet.value = { bitmap, cell: found.cell, cells };
}

const picture = async (path: string) => new Blob([(await assets().readBytes(path)) as BlobPart], { type: "image/png" });

const addresses = signal<ReadonlyMap<string, string>>(new Map());
const asked = new Set<string>();

/** Address of a sheet of pictures; null until it has come, when whoever asked is drawn again. */
export function sheetAddress(name: string): string | null {
  if (!asked.has(name)) {
    asked.add(name);
    picture(`${FOLDER}/${name}`).then(
      (blob) => {
        addresses.value = new Map(addresses.value).set(name, URL.createObjectURL(blob));
      },
      // The next component that shows it asks again.
      () => asked.delete(name),
    );
  }
  return addresses.value.get(name) ?? null;
}
