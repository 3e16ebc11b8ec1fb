// Brings the catalogue and the map's sheet of pictures in, once, when the mode or the panel of an alignment is first shown.

import { FOLDER, loadCatalogue } from "./catalogue.ts";
import { catalogue, catalogueError, sheet } from "./state.ts";

let loading: Promise<void> | null = null;

/** Style whose sheet the map shows: the one that has a picture of every concept. */
const MAP_STYLE = "noto";

/** Starts to load the catalogue where that has not been done; a failure is told in `catalogueError` and can be tried again. */
export function ensureCatalogue(): void {
  loading ??= load().catch((error: unknown) => {
    loading = null;
    catalogueError.value = String((error as Error).message ?? error);
  });
}

async function load(): Promise<void> {
  catalogueError.value = null;
  catalogue.value = await loadCatalogue(document.baseURI);
}

/** Decodes the sheet of the map; after the catalogue. */
export async function ensureSheet(): Promise<void> {
  const found = catalogue.value;
  if (!found || sheet.value) return;
  const cellOf = (index: number) => found.concepts[index]!.cells.get(MAP_STYLE);
  const name = found.concepts.map((c) => c.cells.get(MAP_STYLE)?.sheet).find((path) => path !== undefined);
  const response = await fetch(new URL(`${FOLDER}/${name}`, document.baseURI));
  if (!response.ok) throw new Error(`${FOLDER}/${name} did not come: status ${response.status}`);
  const bitmap = await createImageBitmap(await response.blob());
  const cells = found.concepts.map((_, i) => cellOf(i) ?? { column: 0, row: 0 });
  sheet.value = { bitmap, cell: found.cell, cells };
}
