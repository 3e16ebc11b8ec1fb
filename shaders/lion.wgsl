// Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2) on one flat segment:
//   g = factor * gradient;  p -= lr * wd * p + lr * sign(b1 * m + (1 - b1) * g);  m = b2 * m + (1 - b2) * g
// Where the group's word 15 is set nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2, sum
// of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (the words of all groups, src/optim/step.ts; the own ones begin at p.base: 0 lr, 1 lr wd,
// 2 1 - b1, 3 b1, 4 1 - b2, 5 b2), 3 parts, 4 p, 5 m. All but state are vectors.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> momentum : array<vec4<f32>>;

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  let rate = state[p.base];
  let decay = state[p.base + 1u];
  let direction_rest = state[p.base + 2u];
  let direction_keep = state[p.base + 3u];
  let rest = state[p.base + 4u];
  let keep = state[p.base + 5u];
  let factor = state[p.base + 14u];
  let stopped = state[p.base + 15u] != 0.0;
  var sum = vec2<f32>(0.0);
  for (var i = chunk * 1024u + lane; i < last; i += 64u) {
    var value = parameters[i];
    if (!stopped) {
      let g = factor * gradient[i];
      let m = momentum[i];
      let change = decay * value + rate * sign(direction_keep * m + direction_rest * g);
      value = value - change;
      momentum[i] = keep * m + rest * g;
      parameters[i] = value;
      sum.x += dot(change, change);
    }
    sum.y += dot(value, value);
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && chunk < p.chunks) { parts[p.first + chunk] = total; }
}
