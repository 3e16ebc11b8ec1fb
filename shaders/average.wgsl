// Exponential average of the parameters on one flat segment: average += (1 - decay) * (p - average), after the update.
// Where the group's word 15 is set nothing is changed.
// Bindings: 1 state (words of all groups, src/optim/step.ts), 2 p, 3 average; the last two are vectors of four.
// Chunk: 1024 vectors. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> state : array<f32>;
@group(0) @binding(2) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> average : array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  if (state[p.base + 15u] != 0.0) { return; }
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  let rest = state[p.base + 7u];
  for (var i = chunk * 1024u + lane; i < last; i += 64u) {
    let old = average[i];
    average[i] = old + rest * (parameters[i] - old);
  }
}
