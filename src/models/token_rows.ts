// Embedding tables may be compact: a tensor `<table>.ids` lists the token ids whose rows are stored, in order. Ids are
// mapped to rows on the host; an id that is not stored reads a row behind the table, which is zero on the device.

import type { Safetensors } from "../formats/safetensors.ts";

export class TokenRows {
  /** Rows that the table holds. */
  readonly count: number;
  private readonly rowOf: Map<number, number> | null;

  private constructor(count: number, rowOf: Map<number, number> | null) {
    this.count = count;
    this.rowOf = rowOf;
  }

  /** @param table name of the embedding tensor without ".weight" */
  static async of(file: Safetensors, table: string): Promise<TokenRows> {
    if (!file.has(`${table}.ids`)) return new TokenRows(file.info(`${table}.weight`).shape[0]!, null);
    const ids = await file.readI32(`${table}.ids`);
    return new TokenRows(ids.length, new Map([...ids].map((id, row) => [id, row])));
  }

  /** Rows for ids; ids without a row are added to `unknown`. */
  rows(ids: readonly number[], unknown?: Set<number>): number[] {
    return ids.map((id) => {
      const row = this.rowOf ? this.rowOf.get(id) : id < this.count ? id : undefined;
      if (row === undefined) unknown?.add(id);
      return row ?? this.count;
    });
  }
}
