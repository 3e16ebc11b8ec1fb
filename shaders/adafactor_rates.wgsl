// Adafactor's rate of each tensor: results[p.results + 2 t] = lr_t / max(1, rms(u) / clip), the factor on its update, and
// results[p.results + 2 t + 1] = wd * lr_t, with lr_t = lr, times max(eps, rms(p)) where word 9 is set.
// Bindings: 1 parts (adafactor_sizes.wgsl), 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16,
// src/optim/rules/adafactor.ts), 4 results. Item: one tensor; lanes stride over its chunks, a tree adds them. Grid: one
// workgroup of 64 an item, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> results : array<f32>;

var<workgroup> part : array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let inside = item < p.items;
  let row = (p.row + min(item, p.rows - 1u)) * 16u;
  let size = table[row + 2u];
  let chunks = select(0u, (size + 4095u) / 4096u, inside);
  var sum = vec2<f32>(0.0);
  for (var i = lane; i < chunks; i += 64u) { sum += parts[p.first + table[row] + i]; }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u && inside) {
    let rms = sqrt(part[0] / f32(size));
    var rate = state[p.base];
    if (state[p.base + 9u] != 0.0) { rate = rate * max(state[p.base + 3u], rms.y); }
    results[p.results + 2u * item] = rate / max(1.0, rms.x / state[p.base + 4u]);
    results[p.results + 2u * item + 1u] = state[p.base + 5u] * rate;
  }
}
