// Writes the texts of tests/helpers/wild_text.ts for wild_ids.py: deno run -A tests/oracle/write_wild_texts.ts FILE [COUNT]

import { writeFileSync } from "node:fs";
import { wildText } from "../helpers/wild_text.ts";

const [, , path, count = "4000"] = process.argv;
writeFileSync(path!, JSON.stringify(Array.from({ length: Number(count) }, (_, i) => wildText(i))));
