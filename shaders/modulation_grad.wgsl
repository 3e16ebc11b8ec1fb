// Gradients of an adaptive norm's scale and shift, y = n (1 + scale) + shift: sums over the tokens of dy n and of dy, with
// n = (x - mean) rstd from the statistics that norm.wgsl saved. A lane adds a column of one chunk of tokens in rising order.
// Bindings: 1 dy [batch, tokens, width], 2 x, 3 stats [batch * tokens, 2], 4 dscale [batch, chunks, width], 5 dshift. Grid:
// ceil(batch * chunks * width / 64) workgroups of 64, folded into y with p.fold a row.

struct Params { batch : u32, tokens : u32, width : u32, chunks : u32, per_chunk : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dy : array<f32>;
@group(0) @binding(2) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(3) var<storage, read_write> stats : array<f32>;
@group(0) @binding(4) var<storage, read_write> dscale : array<f32>;
@group(0) @binding(5) var<storage, read_write> dshift : array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let i = (group.x + group.y * p.fold) * 64u + lane;
  if (i >= p.batch * p.chunks * p.width) { return; }
  let column = i % p.width;
  let chunk = (i / p.width) % p.chunks;
  let batch = i / (p.width * p.chunks);
  let first = chunk * p.per_chunk;
  let last = min(first + p.per_chunk, p.tokens);
  var scale = 0.0;
  var shift = 0.0;
  for (var t = first; t < last; t++) {
    let row = batch * p.tokens + t;
    let at = row * p.width + column;
    let d = dy[at];
    scale += d * ((f32(x[at]) - stats[2u * row]) * stats[2u * row + 1u]);
    shift += d;
  }
  dscale[i] = scale;
  dshift[i] = shift;
}
