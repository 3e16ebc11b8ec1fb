// Writes one value: out[i] = p.value (as bits of an f32), i < p.count.
// Bindings: 1 out. Grid: ceil(count / (64 * PER_LANE)) workgroups of 64, PER_LANE values a lane, folded into y with p.fold a row.

struct Params { count : u32, fold : u32, value : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> out : array<{{OUT}}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * (64u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * 64u;
    if (i < p.count) { out[i] = {{OUT}}(p.value); }
  }
}
