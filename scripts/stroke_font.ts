// Small text for pictures, without a font file: each letter is a few cells of a 5 x 9 grid, and neighbouring cells are
// joined by round strokes, so that the letters are smooth at any size. Drawn for scripts/readme_picture.ts.

/** Cells of a letter, nine rows from the ascender to the descender; the baseline lies below the seventh row. */
const LETTERS: Readonly<Record<string, string>> = {
  a: ".....|.....|.###.|....#|.####|#...#|.####|.....|.....",
  b: "#....|#....|####.|#...#|#...#|#...#|####.|.....|.....",
  c: ".....|.....|.####|#....|#....|#....|.####|.....|.....",
  d: "....#|....#|.####|#...#|#...#|#...#|.####|.....|.....",
  e: ".....|.....|.###.|#...#|#####|#....|.####|.....|.....",
  f: "..##.|.#...|####.|.#...|.#...|.#...|.#...|.....|.....",
  g: ".....|.....|.####|#...#|#...#|#...#|.####|....#|.###.",
  h: "#....|#....|####.|#...#|#...#|#...#|#...#|.....|.....",
  i: "..#..|.....|..#..|..#..|..#..|..#..|..#..|.....|.....",
  j: "...#.|.....|...#.|...#.|...#.|...#.|...#.|...#.|.##..",
  k: "#....|#....|#..#.|#.#..|##...|#.#..|#..#.|.....|.....",
  l: "..#..|..#..|..#..|..#..|..#..|..#..|..#..|.....|.....",
  m: ".....|.....|####.|#.#.#|#.#.#|#.#.#|#.#.#|.....|.....",
  n: ".....|.....|####.|#...#|#...#|#...#|#...#|.....|.....",
  o: ".....|.....|.###.|#...#|#...#|#...#|.###.|.....|.....",
  p: ".....|.....|####.|#...#|#...#|#...#|####.|#....|#....",
  q: ".....|.....|.####|#...#|#...#|#...#|.####|....#|....#",
  r: ".....|.....|#.##.|##...|#....|#....|#....|.....|.....",
  s: ".....|.....|.####|#....|.###.|....#|####.|.....|.....",
  t: ".#...|.#...|####.|.#...|.#...|.#...|..##.|.....|.....",
  u: ".....|.....|#...#|#...#|#...#|#...#|.####|.....|.....",
  v: ".....|.....|#...#|#...#|#...#|.#.#.|..#..|.....|.....",
  w: ".....|.....|#.#.#|#.#.#|#.#.#|#.#.#|.#.#.|.....|.....",
  x: ".....|.....|#...#|.#.#.|..#..|.#.#.|#...#|.....|.....",
  y: ".....|.....|#...#|#...#|#...#|#...#|.####|....#|.###.",
  z: ".....|.....|#####|...#.|..#..|.#...|#####|.....|.....",
  J: "..###|...#.|...#.|...#.|...#.|#..#.|.##..|.....|.....",
  "0": ".###.|#...#|#...#|#...#|#...#|#...#|.###.|.....|.....",
  "1": "..#..|.##..|..#..|..#..|..#..|..#..|..#..|.....|.....",
  "2": ".###.|#...#|....#|...#.|..#..|.#...|#####|.....|.....",
  "3": ".###.|#...#|....#|..##.|....#|#...#|.###.|.....|.....",
  "4": "...#.|..##.|.#.#.|#..#.|#####|...#.|...#.|.....|.....",
  "5": "#####|#....|####.|....#|....#|#...#|.###.|.....|.....",
  "6": ".###.|#....|####.|#...#|#...#|#...#|.###.|.....|.....",
  "7": "#####|....#|...#.|...#.|..#..|..#..|..#..|.....|.....",
  "8": ".###.|#...#|#...#|.###.|#...#|#...#|.###.|.....|.....",
  "9": ".###.|#...#|#...#|#...#|.####|....#|.###.|.....|.....",
  "+": ".....|..#..|..#..|#####|..#..|..#..|.....|.....|.....",
  "−": ".....|.....|.....|#####|.....|.....|.....|.....|.....",
  "-": ".....|.....|.....|.###.|.....|.....|.....|.....|.....",
  ".": ".....|.....|.....|.....|.....|.....|..#..|.....|.....",
  ",": ".....|.....|.....|.....|.....|.....|..#..|.#...|.....",
  "'": "..#..|..#..|.....|.....|.....|.....|.....|.....|.....",
};
const ROWS = 9;
const COLUMNS = 5;
const ADVANCE = 6;

interface Stroke {
  from: [number, number];
  to: [number, number];
}

/** Strokes of a letter: neighbours are joined, diagonally only where no corner joins them already. */
function strokesOf(letter: string): Stroke[] {
  const rows = LETTERS[letter]?.split("|");
  if (!rows) return [];
  const on = (x: number, y: number) => rows[y]?.[x] === "#";
  const strokes: Stroke[] = [];
  for (let y = 0; y < ROWS; y++) {
    for (let x = 0; x < COLUMNS; x++) {
      if (!on(x, y)) continue;
      strokes.push({ from: [x, y], to: [x, y] });
      if (on(x + 1, y)) strokes.push({ from: [x, y], to: [x + 1, y] });
      if (on(x, y + 1)) strokes.push({ from: [x, y], to: [x, y + 1] });
      for (const side of [-1, 1]) {
        if (on(x + side, y + 1) && !on(x + side, y) && !on(x, y + 1))
          strokes.push({ from: [x, y], to: [x + side, y + 1] });
      }
    }
  }
  return strokes;
}

function distance(x: number, y: number, { from, to }: Stroke): number {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - from[0]) * dx + (y - from[1]) * dy) / length));
  return Math.hypot(x - from[0] - along * dx, y - from[1] - along * dy);
}

/** Letters that are not in the table are drawn without accent and in lower case, or left out. */
function lettersOf(text: string): string[] {
  const plain = text
    .normalize("NFD")
    .replace(/\p{Mark}/gu, "")
    .replace(/[’‘]/g, "'");
  return [...plain].map((c) => (c in LETTERS ? c : c.toLowerCase())).filter((c) => c === " " || c in LETTERS);
}

/** Width in pixels of a text whose grid cells are `size` pixels. */
export function textWidth(text: string, size: number): number {
  return (lettersOf(text).length * ADVANCE - 1) * size;
}

/** Calls `blend` with every pixel that a text touches and how much of it is covered; x, y is the top left corner. */
export function drawText(
  text: string,
  x: number,
  y: number,
  size: number,
  blend: (x: number, y: number, share: number) => void,
): void {
  const radius = 0.5 * size;
  for (const [i, letter] of lettersOf(text).entries()) {
    const left = x + i * ADVANCE * size;
    const strokes = strokesOf(letter);
    if (strokes.length === 0) continue;
    for (let py = Math.floor(y - size); py <= y + (ROWS + 1) * size; py++) {
      for (let px = Math.floor(left - size); px <= left + ADVANCE * size; px++) {
        const u = (px + 0.5 - left) / size - 0.5;
        const v = (py + 0.5 - y) / size - 0.5;
        const near = Math.min(...strokes.map((stroke) => distance(u, v, stroke))) * size;
        const share = Math.min(1, Math.max(0, radius - near + 0.5));
        if (share > 0) blend(px, py, share);
      }
    }
  }
}
