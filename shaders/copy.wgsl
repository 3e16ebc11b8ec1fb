// Copies words: to[i] = from[i], i < p.items, an item being a word or four of them. One lane moves PER_LANE items, a
// workgroup's width apart.
// Bindings: 1 from, 2 to. Grid: ceil(items / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold workgroups a row.

struct Params { items : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> source : array<{{ITEM}}>;
@group(0) @binding(2) var<storage, read_write> target_ : array<{{ITEM}}>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i < p.items) { target_[i] = source[i]; }
  }
}
