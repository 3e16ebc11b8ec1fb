// Fused AdamW (Loshchilov & Hutter 2019) on one flat segment, with torch's order of operations:
//   g = factor * gradient;  p -= lr * wd * p;  m += (1 - b1) * (g - m);  v = b2 * v + (1 - b2) * g^2
//   p -= (lr / (1 - b1^t)) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
// Where state[15] is set nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2, sum of p^2)
// of chunk c.
//#if EMA
// The average follows: average += (1 - decay) * (p - average).
//#endif
// Bindings: 1 gradient, 2 state (src/optim/adamw.ts), 3 parts, 4 p, 5 m, 6 v, 7 average (where EMA). All are vectors of
// four.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> first_moment : array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> second_moment : array<vec4<f32>>;
//#if EMA
@group(0) @binding(7) var<storage, read_write> average : array<vec4<f32>>;
//#endif

var<workgroup> part : array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  let step_size = state[0];
  let decay = state[1];
  let second_scale = state[2];
  let eps = state[3];
  let first_rest = state[4];
  let second_keep = state[5];
  let second_rest = state[6];
  let factor = state[14];
  let stopped = state[15] != 0.0;
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
//#if EMA
      average[i] += state[7] * (value - average[i]);
//#endif
      sum.x += dot(change, change);
    }
    sum.y += dot(value, value);
  }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u && chunk < p.chunks) { parts[p.first + chunk] = part[0]; }
}
