// Stochastic gradient descent with momentum on one flat segment, as torch.optim.SGD:
//   g = factor * gradient + wd * p;  m = momentum * m + g;  p -= lr * m       (without MOMENTUM: p -= lr * g)
// Where the group's word 15 is set nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2, sum
// of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (the words of all groups, src/optim/step.ts; the own ones begin at p.base: 0 lr, 1 wd,
// 2 momentum), 3 parts, 4 p, 5 m (where MOMENTUM). All but state are vectors.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> parameters : array<vec4<f32>>;
//#if MOMENTUM
@group(0) @binding(5) var<storage, read_write> momentum : array<vec4<f32>>;
//#endif

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  let rate = state[p.base];
  let decay = state[p.base + 1u];
  let keep = state[p.base + 2u];
  let factor = state[p.base + 14u];
  let stopped = state[p.base + 15u] != 0.0;
  var sum = vec2<f32>(0.0);
  for (var i = chunk * 1024u + lane; i < last; i += 64u) {
    var value = parameters[i];
    if (!stopped) {
      var direction = factor * gradient[i] + decay * value;
//#if MOMENTUM
      direction += keep * momentum[i];
      momentum[i] = direction;
//#endif
      let change = rate * direction;
      value = value - change;
      parameters[i] = value;
      sum.x += dot(change, change);
    }
    sum.y += dot(value, value);
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && chunk < p.chunks) { parts[p.first + chunk] = total; }
}
