// The embedded long tail as the page reads it, from the project's own files.

import { readFileSync } from "node:fs";
import { type Catalogue, type CatalogueFiles, readCatalogue } from "../../../src/web/longtail/catalogue.ts";

const json = (name: string): unknown => JSON.parse(readFileSync(`models/embedded/${name}`, "utf8"));

export const catalogueFiles = (): CatalogueFiles => ({
  items: json("items.json"),
  pictures: json("pictures.json"),
  map: json("map.json"),
});

let read: Catalogue | null = null;

export const embeddedCatalogue = (): Catalogue => {
  read ??= readCatalogue(catalogueFiles());
  return read;
};
