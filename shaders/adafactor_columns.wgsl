// First pass of Adafactor's second moment by columns: sums of (factor * gradient)^2 + eps over up to 128 rows of a column,
// one value a tile of rows and column. Columns of a stack [B, R, C] count as B * C.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16, src/optim/rules/
// adafactor.ts), 4 sums. Item: 64 columns of one tile, one lane each. Grid: one workgroup of 64 an item, folded into y with
// p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> sums : array<f32>;

const ROW = 16u;
{{FIND_ROW}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  if (item >= p.items) { return; }
  let row = find_row(p.row, p.rows, 8u, item);
  let columns = table[row + 6u];
  let all = table[row + 4u] * columns;
  let blocks = (all + 63u) / 64u;
  let own = item - table[row + 8u];
  let tile = own / blocks;
  let column = (own % blocks) * 64u + lane;
  if (column >= all) { return; }
  let rows = table[row + 5u];
  let matrix = table[row + 1u] + (column / columns) * rows * columns + column % columns;
  let last = min((tile + 1u) * 128u, rows);
  let factor = state[p.base + 14u];
  let eps = state[p.base + 2u];
  var sum = 0.0;
  for (var r = tile * 128u; r < last; r++) {
    let g = factor * gradient[matrix + r * columns];
    sum += g * g + eps;
  }
  sums[table[row + 11u] + tile * all + column] = sum;
}
