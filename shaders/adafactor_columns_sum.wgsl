// Second pass of Adafactor's second moment by columns: columns[q] += (1 - b2t) * (sum over the tiles / R - columns[q]).
// Where the group's word 15 is set nothing is changed.
// Bindings: 1 sums (adafactor_columns.wgsl), 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16,
// src/optim/rules/adafactor.ts), 4 moments. Item: 64 columns, one lane each. Grid: one workgroup of 64 an item, folded into
// y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> sums : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> moments : array<f32>;

const ROW = 16u;
{{FIND_ROW}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  if (item >= p.items || state[p.base + 15u] != 0.0) { return; }
  let row = find_row(p.row, p.rows, 9u, item);
  let rows = table[row + 5u];
  let all = table[row + 4u] * table[row + 6u];
  let column = (item - table[row + 9u]) * 64u + lane;
  if (column >= all) { return; }
  var sum = 0.0;
  for (var tile = 0u; tile < (rows + 127u) / 128u; tile++) { sum += sums[table[row + 11u] + tile * all + column]; }
  let at = table[row + 3u] + table[row + 4u] * rows + column;
  let old = moments[at];
  moments[at] = old + state[p.base + 1u] * (sum / f32(rows) - old);
}
