// Prodigy remembers the first point: points[j] = p[j * step] for the ceil(size / step) places of every tensor.
// Bindings: 1 table (rows of 4, src/optim/tensors.ts), 2 p, 3 points. Chunk: 4096 values of one tensor. Grid: one
// workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, step : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> table : array<u32>;
@group(0) @binding(2) var<storage, read_write> parameters : array<f32>;
@group(0) @binding(3) var<storage, read_write> points : array<f32>;

const ROW = 4u;
{{FIND_ROW}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  if (item >= p.items) { return; }
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u];
  let size = table[row + 2u];
  let origin = table[row + 3u];
  let begin = (item - table[row]) * 4096u;
  let last = min(begin + 4096u, size);
  for (var i = begin + lane; i < last; i += 64u) {
    if (i % p.step == 0u) { points[origin + i / p.step] = parameters[start + i]; }
  }
}
