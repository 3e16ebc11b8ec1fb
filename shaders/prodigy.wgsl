// Prodigy's step on one flat segment (Mishchenko & Defazio 2023), after the estimate:
//   g = factor * gradient (+ wd * p where COUPLED);  m = b1 m + (1 - b1) d g;  v = b2 v + (1 - b2) (d g)^2
//   p -= dlr * m / (sqrt(v) + d' eps) (+ dlr * wd * p unless COUPLED); without FIRST (b1 = 0) d' g stands for m
// with d and dlr from before the estimate and d' from after it (steps = dlr, d, d', 1 where parameters move). Where the
// group's word 15 is set, or lr is 0, nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2,
// sum of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts, meanings in src/optim/rules/prodigy.ts), 3 steps,
// 4 parts, 5 p, 6 v, 7 m (where FIRST). Gradient, p, v and m are vectors of four.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> steps : array<f32>;
@group(0) @binding(4) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> second_moment : array<vec4<f32>>;
//#if FIRST
@group(0) @binding(7) var<storage, read_write> first_moment : array<vec4<f32>>;
//#endif

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  let first_rest = state[p.base + 1u];
  let second_rest = state[p.base + 2u];
  let decay = state[p.base + 4u];
  let second_keep = state[p.base + 11u];
  let first_keep = state[p.base + 12u];
  let factor = state[p.base + 14u];
  let taken = state[p.base + 15u] == 0.0 && state[p.base] > 0.0;
  let dlr = steps[0];
  let d = steps[1];
  let next = steps[2];
  let eps = next * state[p.base + 5u];
  let moves = steps[3] != 0.0;
  var sum = vec2<f32>(0.0);
  for (var i = chunk * 1024u + lane; i < last; i += 64u) {
    var value = parameters[i];
    if (taken) {
      var g = factor * gradient[i];
//#if COUPLED
      g += decay * value;
//#endif
      let scaled = d * g;
      let v = second_keep * second_moment[i] + second_rest * scaled * scaled;
      second_moment[i] = v;
//#if FIRST
      let m = first_keep * first_moment[i] + first_rest * scaled;
      first_moment[i] = m;
//#else
      let m = next * g;
//#endif
      if (moves) {
        // Where d and the moments are below the range of f32 there is no direction to go.
        let bottom = max(sqrt(v) + eps, vec4<f32>(1e-37));
        var change = dlr * (m / bottom);
//#if !COUPLED
        change += dlr * decay * value;
//#endif
        value = value - change;
        parameters[i] = value;
        sum.x += dot(change, change);
      }
    }
    sum.y += dot(value, value);
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && chunk < p.chunks) { parts[p.first + chunk] = total; }
}
