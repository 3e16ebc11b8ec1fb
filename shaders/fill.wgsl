// Writes one value: out[i] = p.value (as bits of an f32), i < p.count items of one value or four.
// Bindings: 1 out. Grid: ceil(count / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold a row.

struct Params { count : u32, fold : u32, value : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> out : array<{{ITEM}}>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i < p.count) { out[i] = {{ITEM}}({{OUT}}(p.value)); }
  }
}
