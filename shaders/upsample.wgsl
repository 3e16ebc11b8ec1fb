// Nearest upsampling of pictures [planes, h, w] by two, and its gradient.
//#if BACKWARD
// out[n, y, x] = a[n, 2y, 2x] + a[n, 2y, 2x+1] + a[n, 2y+1, 2x] + a[n, 2y+1, 2x+1]; p.width is the width of out.
//#else
// out[n, y, x] = a[n, y / 2, x / 2]; p.width is the width of out, heights are even so that planes need no count.
//#endif
// Bindings: 1 a, 2 out; operands of the epilogue from 3. A lane makes PER_LANE values; grid: ceil(size / (LANES * PER_LANE)) workgroups of
// 64, folded into y with p.fold a row. Limit: fewer than 2^32 values.

struct Params { size : u32, width : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> a : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT}}>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
  let index = base + j * {{LANES}}u;
  if (index >= p.size) { return; }
  let x = index % p.width;
  let row = index / p.width;
//#if BACKWARD
  let at = row * 4u * p.width + 2u * x;
  let below = at + 2u * p.width;
  var v = (f32(a[at]) + f32(a[at + 1u])) + (f32(a[below]) + f32(a[below + 1u]));
//#else
  var v = f32(a[(row / 2u) * (p.width / 2u) + x / 2u]);
//#endif
  {{EPILOGUE}}
  out[index] = {{OUT}}(v);
  }
}
