// Positions of FLUX.2's tokens. A position has four coordinates (time, row, column, place in the text): image tokens are
// (0, row, column, 0), text tokens (0, 0, 0, place), and reference pictures stand at later times. Sinusoids and rotary tables
// are made as for FLUX.1 (../flux/embeddings.ts).

/** Distance in time between reference pictures, and of the first one from the picture that is drawn. */
const REFERENCE_TIME = 10;

/** Ids [rows · columns, 4] of one picture at `time`, row by row. */
function pictureIds(time: number, rows: number, columns: number): number[][] {
  const ids: number[][] = [];
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) ids.push([time, r, c, 0]);
  return ids;
}

/** Position ids [textTokens + rows · columns, 4] of a text and the picture that is drawn after it. */
export function positionIds(textTokens: number, rows: number, columns: number): number[][] {
  return [...Array.from({ length: textTokens }, (_, place) => [0, 0, 0, place]), ...pictureIds(0, rows, columns)];
}

/** Position ids of reference pictures, which follow the drawn picture's tokens: picture n stands at the time 10 + 10 n. */
export function referenceIds(pictures: readonly { rows: number; columns: number }[]): number[][] {
  return pictures.flatMap(({ rows, columns }, n) => pictureIds(REFERENCE_TIME * (n + 1), rows, columns));
}
