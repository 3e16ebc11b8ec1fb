// AdamW on tensors whose moments lie as bits of f32 in words, m before v: the small tensors beside those of
// adam8bit.wgsl. Formula: adamw.wgsl. Where the group's word 15 is set nothing is changed. Part `first + c` of `parts`
// becomes (sum of (new p - old p)^2, sum of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 4, src/optim/tensors.ts),
// 4 parts, 5 p, 6 moments.
// Chunk: 4096 values of one tensor. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> parameters : array<f32>;
@group(0) @binding(6) var<storage, read_write> moments : array<u32>;

const ROW = 4u;
{{FIND_ROW}}

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u];
  let size = table[row + 2u];
  let first = table[row + 3u];
  let begin = (item - table[row]) * 4096u;
  let last = select(0u, min(begin + 4096u, size), item < p.items);
  let step_size = state[p.base];
  let decay = state[p.base + 1u];
  let second_scale = state[p.base + 2u];
  let eps = state[p.base + 3u];
  let first_rest = state[p.base + 4u];
  let second_keep = state[p.base + 5u];
  let second_rest = state[p.base + 6u];
  let factor = state[p.base + 14u];
  let stopped = state[p.base + 15u] != 0.0;
  var sum = vec2<f32>(0.0);
  for (var i = begin + lane; i < last; i += 64u) {
    var value = parameters[start + i];
    if (!stopped) {
      let g = factor * gradient[start + i];
      let old_first = bitcast<f32>(moments[first + i]);
      let m = old_first + first_rest * (g - old_first);
      let v = second_keep * bitcast<f32>(moments[first + size + i]) + second_rest * g * g;
      let change = decay * value + step_size * (m / (sqrt(v) * second_scale + eps));
      value = value - change;
      moments[first + i] = bitcast<u32>(m);
      moments[first + size + i] = bitcast<u32>(v);
      parameters[start + i] = value;
      sum.x += change * change;
    }
    sum.y += value * value;
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && item < p.items) { parts[p.first + item] = total; }
}
