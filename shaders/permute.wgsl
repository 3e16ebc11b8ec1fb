// Reorders dimensions: out[i0, ..., i5] = x[sum_k i_k * stride_k]; sizes and strides of up to six output dimensions are
// data, missing leading dimensions have size 1. Packing of latents and NCHW <-> token layouts are calls of this kernel.
// Bindings: 1 x, 2 out. Grid: ceil(count / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold a row.

struct Params { count : u32, fold : u32, size1 : u32, size2 : u32, size3 : u32, size4 : u32, size5 : u32,
  stride0 : u32, stride1 : u32, stride2 : u32, stride3 : u32, stride4 : u32, stride5 : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{T}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{T}}>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i < p.count) {
      var rest = i;
      var at = (rest % p.size5) * p.stride5;
      rest = rest / p.size5;
      at += (rest % p.size4) * p.stride4;
      rest = rest / p.size4;
      at += (rest % p.size3) * p.stride3;
      rest = rest / p.size3;
      at += (rest % p.size2) * p.stride2;
      rest = rest / p.size2;
      at += (rest % p.size1) * p.stride1;
      rest = rest / p.size1;
      out[i] = x[at + rest * p.stride0];
    }
  }
}
