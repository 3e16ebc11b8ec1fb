// The estimate's sums in Prodigy (Mishchenko & Defazio 2023), chunk by chunk over every p.step-th value of each tensor:
//   g = factor * gradient (+ wd * p where COUPLED);  s = b3 * s + (d / d0) * (SAFEGUARD ? d : dlr) * g
// Part `first + c` becomes (sum of g * (p0 - p), sum of |s|) of chunk c. dlr = d * lr * c with the bias correction c
// (where BIAS) of the coming step. Where the group's word 15 is set, or lr is 0, s stays as it is.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts, meanings in src/optim/rules/prodigy.ts), 3 table
// (rows of 4, src/optim/tensors.ts), 4 estimate, 5 p, 6 p0, 7 parts, 8 s (both of the places that the estimate looks at).
// Chunk: 4096 values of one tensor. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, step : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> estimate : array<f32>;
@group(0) @binding(5) var<storage, read_write> parameters : array<f32>;
@group(0) @binding(6) var<storage, read_write> points : array<f32>;
@group(0) @binding(7) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(8) var<storage, read_write> sums : array<f32>;

{{LANE_SUM}}

const ROW = 4u;
{{FIND_ROW}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u];
  let size = table[row + 2u];
  let slice = table[row + 3u];
  let begin = (item - table[row]) * 4096u;
  let last = select(0u, min(begin + 4096u, size), item < p.items);
  let rate = state[p.base];
  let decay = state[p.base + 4u];
  let keep = state[p.base + 3u];
  let factor = state[p.base + 14u];
  let moves = state[p.base + 15u] == 0.0 && rate > 0.0;
  let d = estimate[0];
//#if SAFEGUARD
  let weight = d / state[p.base + 10u] * d;
//#else
  var dlr = d * rate;
//#if BIAS
  let first = estimate[4] + state[p.base + 1u] * (1.0 - estimate[4]);
  let second = estimate[5] + state[p.base + 2u] * (1.0 - estimate[5]);
  dlr = dlr * sqrt(second) / first;
//#endif
  let weight = d / state[p.base + 10u] * dlr;
//#endif
  var sum = vec2<f32>(0.0);
  if (moves) {
    for (var i = begin + lane; i < last; i += 64u) {
      if (i % p.step == 0u) {
        let value = parameters[start + i];
        var g = factor * gradient[start + i];
//#if COUPLED
        g += decay * value;
//#endif
        let j = i / p.step;
        let s = keep * sums[slice + j] + weight * g;
        sums[slice + j] = s;
        sum += vec2<f32>(g * (points[slice + j] - value), abs(s));
      }
    }
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && item < p.items) { parts[p.first + item] = total; }
}
