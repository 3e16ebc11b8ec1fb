// Gradient of attention with respect to a bias that all samples of a batch share: with w_ij = exp(s_ij - log_sum_exp_i)
// computed again, dbias_ij = sum over b of w_ij * (dout_i . v_j - delta_i) (Dao et al. 2022, section B.4).
// Tensors [B, L, H * hd]; log_sum_exp and delta [B, H, Lq].
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp, 6 delta, 7 bias [H, Lq, Lk], 8 dbias [chunks, H, Lq, Lk].
// Mapping: one invocation a (chunk, h, i, j) adds p.chunk samples in order; the caller adds the chunks.
// Grid: ceil(chunks * H * Lq * Lk / 64) workgroups of 64, folded into y with p.fold a row.

struct Params {
  batch : u32, heads : u32, rows : u32, keys : u32, head : u32, chunk : u32, count : u32, fold : u32, scale : f32
}
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> q : array<vec4<{{Q}}>>;
@group(0) @binding(2) var<storage, read_write> k : array<vec4<{{K}}>>;
@group(0) @binding(3) var<storage, read_write> v : array<vec4<{{V}}>>;
@group(0) @binding(4) var<storage, read_write> dout : array<vec4<{{DOUT}}>>;
@group(0) @binding(5) var<storage, read_write> log_sum_exp : array<f32>;
@group(0) @binding(6) var<storage, read_write> delta : array<f32>;
@group(0) @binding(7) var<storage, read_write> bias : array<{{BIAS_TYPE}}>;
@group(0) @binding(8) var<storage, read_write> dbias : array<f32>;

const MASKED = -1.0e38;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let index = (group.x + group.y * p.fold) * 64u + lane;
  if (index >= p.count) { return; }
  let place = index % (p.heads * p.rows * p.keys);
  let j = place % p.keys;
  let i = (place / p.keys) % p.rows;
  let h = place / (p.keys * p.rows);
  let first = index / (p.heads * p.rows * p.keys) * p.chunk;
  let level = f32(bias[place]);
//#if CAUSAL
  let hidden = level < MASKED || j > i;
//#else
  let hidden = level < MASKED;
//#endif
  var sum = 0.0;
  for (var b = first; b < min(first + p.chunk, p.batch); b++) {
    let at_row = ((b * p.rows + i) * p.heads + h) * p.head;
    let at_key = ((b * p.keys + j) * p.heads + h) * p.head;
    var score = 0.0;
    var flow = 0.0;
    for (var d = 0u; d < p.head; d++) {
      score += dot(vec4<f32>(q[at_row + d]), vec4<f32>(k[at_key + d]));
      flow += dot(vec4<f32>(dout[at_row + d]), vec4<f32>(v[at_key + d]));
    }
    let row = (b * p.heads + h) * p.rows + i;
    if (!hidden) { sum += exp(score * p.scale + level - log_sum_exp[row]) * (flow - delta[row]); }
  }
  dbias[index] = sum;
}
