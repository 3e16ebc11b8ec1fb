// Copies words: to[i] = from[i], i < p.words. One lane moves PER_LANE words, a workgroup's width apart.
// Bindings: 1 from, 2 to. Grid: ceil(words / (64 * PER_LANE)) workgroups of 64, PER_LANE values a lane, folded into y with p.fold workgroups a row.

struct Params { words : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> source : array<u32>;
@group(0) @binding(2) var<storage, read_write> target_ : array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * (64u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * 64u;
    if (i < p.words) { target_[i] = source[i]; }
  }
}
