// Adafactor's second moment by rows (Shazeer & Stern 2018): for every row r of a matrix [B, R, C]
//   rows[r] += (1 - b2t) * (mean over C of (factor * gradient)^2 + eps - rows[r])
// Where the group's word 15 is set nothing is changed.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16, src/optim/rules/
// adafactor.ts), 4 moments (rows [B, R], then columns [B, C], tensor by tensor). Item: eight rows, eight lanes each, which
// stride and are added by a tree. Grid: one workgroup of 64 an item, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> moments : array<f32>;

const ROW = 16u;
{{FIND_ROW}}

var<workgroup> part : array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 7u, item);
  let columns = table[row + 6u];
  let r = (item - table[row + 7u]) * 8u + lane / 8u;
  let inside = item < p.items && r < table[row + 4u] * table[row + 5u] && state[p.base + 15u] == 0.0;
  let factor = state[p.base + 14u];
  let eps = state[p.base + 2u];
  var sum = 0.0;
  if (inside) {
    let origin = table[row + 1u] + r * columns;
    for (var c = lane % 8u; c < columns; c += 8u) {
      let g = factor * gradient[origin + c];
      sum += g * g + eps;
    }
  }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 4u; width > 0u; width = width >> 1u) {
    if (lane % 8u < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (inside && lane % 8u == 0u) {
    let at = table[row + 3u] + r;
    let old = moments[at];
    moments[at] = old + state[p.base + 1u] * (part[lane] / f32(columns) - old);
  }
}
