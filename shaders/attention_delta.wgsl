// delta[b, h, i] = sum over the head's columns of dout * out: what the softmax's derivative subtracts in every score of
// the row (Dao et al. 2022, section B.4).
// Tensors [B, Lq, H * hd]. Bindings: 1 dout, 2 out, 3 delta. One invocation a (b, i, h), in the order of memory.
// Grid: ceil(B * Lq * H / 64) workgroups of 64, folded into y with p.fold a row.

struct Params { batch : u32, heads : u32, rows : u32, fold : u32, head : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dout : array<vec4<{{DOUT}}>>;
@group(0) @binding(2) var<storage, read_write> out : array<vec4<{{OUT}}>>;
@group(0) @binding(3) var<storage, read_write> delta : array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let index = (group.x + group.y * p.fold) * 64u + lane;
  if (index >= p.batch * p.rows * p.heads) { return; }
  let h = index % p.heads;
  let i = (index / p.heads) % p.rows;
  let b = index / (p.heads * p.rows);
  var sum = 0.0;
  for (var at = index * p.head; at < (index + 1u) * p.head; at++) {
    sum += dot(vec4<f32>(dout[at]), vec4<f32>(out[at]));
  }
  delta[(b * p.heads + h) * p.rows + i] = sum;
}
