// Fused AdamW (Loshchilov & Hutter 2019) on one flat segment, with torch's order of operations:
//   g = factor * gradient;  p -= lr * wd * p;  m += (1 - b1) * (g - m);  v = b2 * v + (1 - b2) * g^2
//   p -= (lr / (1 - b1^t)) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
// Where the group's word 15 is set nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2, sum
// of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (the words of all groups, src/optim/step.ts; the own ones begin at p.base), 3 parts, 4 p,
// 5 m, 6 v. All but state are vectors.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> first_moment : array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> second_moment : array<vec4<f32>>;

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
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
  for (var i = chunk * 1024u + lane; i < last; i += 64u) {
    var value = parameters[i];
    if (!stopped) {
      let g = factor * gradient[i];
      let old_first = first_moment[i];
      let m = old_first + first_rest * (g - old_first);
      let v = second_keep * second_moment[i] + second_rest * g * g;
      let change = decay * value + step_size * (m / (sqrt(v) * second_scale + eps));
      value = value - change;
      first_moment[i] = m;
      second_moment[i] = v;
      parameters[i] = value;
      sum.x += dot(change, change);
    }
    sum.y += dot(value, value);
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && chunk < p.chunks) { parts[p.first + chunk] = total; }
}
