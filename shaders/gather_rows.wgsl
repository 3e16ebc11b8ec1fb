//#if BACKWARD
// Gradient of picking one row per batch element: out[b, l, d] = dy[b, d] where l = pick[b], else 0.
// Bindings: 1 dy [batch, width], 2 pick [batch], 3 out [batch, length, width].
//#else
// One row per batch element: out[b, d] = x[b, pick[b], d]; a row outside gives zeros.
// Bindings: 1 x [batch, length, width], 2 pick [batch], 3 out [batch, width].
//#endif
// Grid: ceil(elements of out / 256) workgroups of 64, folded into y with p.fold a row.

struct Params { count : u32, length : u32, width : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> pick : array<u32>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * 256u + lane;
  for (var j = 0u; j < 4u; j++) {
    let index = base + j * 64u;
    if (index < p.count) {
      let d = index % p.width;
//#if BACKWARD
      let l = (index / p.width) % p.length;
      let b = index / (p.width * p.length);
      var v = 0.0;
      if (l == pick[b]) { v = f32(x[b * p.width + d]); }
//#else
      let b = index / p.width;
      let l = pick[b];
      var v = 0.0;
      if (l < p.length) { v = f32(x[(b * p.length + l) * p.width + d]); }
//#endif
      out[index] = v;
    }
  }
}
