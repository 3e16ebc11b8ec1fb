// Means of Adafactor's row moments, one a matrix of a stack [B, R, C]: results[b] = mean over R of rows[b, r].
// Bindings: 1 moments, 2 table (rows of 16, src/optim/rules/adafactor.ts), 3 results. Item: one matrix; lanes stride, a
// tree adds them. Grid: one workgroup of 64 an item, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> moments : array<f32>;
@group(0) @binding(2) var<storage, read_write> table : array<u32>;
@group(0) @binding(3) var<storage, read_write> results : array<f32>;

const ROW = 16u;
{{FIND_ROW}}

var<workgroup> part : array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 10u, item);
  let matrix = item - table[row + 10u];
  let inside = item < p.items;
  let rows = select(0u, table[row + 5u], inside);
  let origin = table[row + 3u] + matrix * rows;
  var sum = 0.0;
  for (var r = lane; r < rows; r += 64u) { sum += moments[origin + r]; }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u && inside) { results[table[row + 12u] + matrix] = part[0] / f32(rows); }
}
