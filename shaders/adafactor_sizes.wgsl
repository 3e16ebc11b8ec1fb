// Sizes of Adafactor's updates, chunk by chunk: part p.first + c becomes (sum of u^2, sum of p^2) of chunk c with u the
// update before its size is chosen (shaders/lib/adafactor_direction.wgsl). Vectors and single values keep a whole second
// moment, which is updated here: v += (1 - b2t) * ((factor * gradient)^2 + eps - v). Where the group's word 15 is set
// nothing is changed.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16, src/optim/rules/
// adafactor.ts), 4 results (means of the rows), 5 p, 6 parts, 7 moments.
// Chunk: 4096 values of one tensor. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> results : array<f32>;
@group(0) @binding(5) var<storage, read_write> parameters : array<f32>;
@group(0) @binding(6) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> moments : array<f32>;

const ROW = 16u;
{{FIND_ROW}}
{{DIRECTION}}

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u];
  let begin = (item - table[row]) * 4096u;
  let last = select(0u, min(begin + 4096u, table[row + 2u]), item < p.items && state[p.base + 15u] == 0.0);
  let whole = table[row + 6u] == 0u;
  let rest = state[p.base + 1u];
  let eps = state[p.base + 2u];
  let factor = state[p.base + 14u];
  var sum = vec2<f32>(0.0);
  for (var i = begin + lane; i < last; i += 64u) {
    let g = factor * gradient[start + i];
    if (whole) {
      let at = table[row + 3u] + i;
      let old = moments[at];
      moments[at] = old + rest * (g * g + eps - old);
    }
    let u = direction(row, i, g);
    let value = parameters[start + i];
    sum += vec2<f32>(u * u, value * value);
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && item < p.items) { parts[p.first + item] = total; }
}
