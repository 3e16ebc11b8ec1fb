// Prodigy's estimate d of the distance to the solution, from the sums of all chunks (Mishchenko & Defazio 2023):
//   dlr = d lr c;  r' = b3 r + (d / d0) dlr * sum of g (p0 - p);  e = d_coef r' / sum of |s|
//   if d = d0: d = max(d, e);  d_max = max(d_max, e);  d = min(d_max, d growth);  r = r';  k += 1
// estimate = (d, d_max, r, k, 1 - b1^k, 1 - b2^k). Where the sum of |s| is 0 or e is not finite, the estimate and the
// parameters stay. `steps` receives (dlr and d before, d after, 1 where parameters move).
// Bindings: 1 parts, 2 state (words of a group with a rate: p.base), 3 steps, 4 estimate, 5 report. Grid: one workgroup of
// 256; lanes stride, a tree adds in fixed order.

struct Params { chunks : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> steps : array<f32>;
@group(0) @binding(4) var<storage, read_write> estimate : array<f32>;
@group(0) @binding(5) var<storage, read_write> report : array<f32>;

var<workgroup> part : array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane : u32) {
  var sum = vec2<f32>(0.0);
  for (var i = lane; i < p.chunks; i += 256u) { sum += parts[i]; }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane != 0u) { return; }
  let d = estimate[0];
  let d0 = state[p.base + 10u];
  let rate = state[p.base];
  let first = estimate[4] + state[p.base + 1u] * (1.0 - estimate[4]);
  let second = estimate[5] + state[p.base + 2u] * (1.0 - estimate[5]);
  var dlr = d * rate;
//#if BIAS
  dlr = dlr * sqrt(second) / first;
//#endif
  let total = part[0];
  let numerator = state[p.base + 3u] * estimate[2] + d / d0 * dlr * total.x;
  let found = state[p.base + 6u] * numerator / total.y;
  let sound = (bitcast<u32>(found) & 0x7f800000u) != 0x7f800000u;
  let moves = state[p.base + 15u] == 0.0 && rate > 0.0 && total.y > 0.0 && sound;
  var next = d;
  if (moves) {
    if (d == d0) { next = max(d, found); }
    let largest = max(estimate[1], found);
    next = min(largest, next * state[p.base + 9u]);
    estimate[0] = next;
    estimate[1] = largest;
    estimate[2] = numerator;
    estimate[3] += 1.0;
    estimate[4] = first;
    estimate[5] = second;
  }
  steps[0] = dlr;
  steps[1] = d;
  steps[2] = next;
  steps[3] = select(0.0, 1.0, moves);
  report[4] = next;
}
