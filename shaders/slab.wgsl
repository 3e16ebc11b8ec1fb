// Strided copy of runs: to[o * to_stride + to_offset + r] = from[o * from_stride + from_offset + r], o < outer, r < run.
// T is an element, or a vector of four where all sizes divide (everything then counts vectors).
//#if ALIGNED
// This variant: neighbouring lanes of a workgroup belong to one run.
//#endif
// Slices, concatenations and paddings along any one dimension are calls of this kernel.
// Bindings: 1 from, 2 to. Grid: ceil(outer * run / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold a row.

struct Params { outer : u32, run : u32, from_stride : u32, from_offset : u32, to_stride : u32, to_offset : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> source : array<{{T}}>;
@group(0) @binding(2) var<storage, read_write> target_ : array<{{T}}>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u);
  let count = p.outer * p.run;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let first = base + j * {{LANES}}u;
    let i = first + lane;
    if (i < count) {
//#if ALIGNED
      let o = first / p.run;
//#else
      let o = i / p.run;
//#endif
      let r = i - o * p.run;
      target_[o * p.to_stride + p.to_offset + r] = source[o * p.from_stride + p.from_offset + r];
    }
  }
}
