// Several parts and the tensor that holds them beside each other along one dimension, copied by one dispatch:
// joint[o * stride + offset_k + r] = part_k[o * run_k + r], o < outer, r < run_k, for every part k; or back.
// T is an element, or a vector of four where all sizes divide (everything then counts vectors).
//#if ALIGNED
// This variant: all lanes of a workgroup belong to one run.
//#endif
//#if SPLIT
// This variant writes the parts.
//#else
// This variant writes the joint tensor.
//#endif
// Bindings: what is read, then what is written: joint and the parts, or the parts (at most 7) and joint. Every workgroup belongs to one part: part k has those below end_k, and
// ceil(outer * run_k / (LANES * PER_LANE)) of them. Grid: end of the last part, folded into y with p.fold a row.

struct Params {
  outer : u32, stride : u32, fold : u32,
//#for k PARTS
  run{{k}} : u32, offset{{k}} : u32, first{{k}} : u32, end{{k}} : u32,
//#endfor
}
@group(0) @binding(0) var<uniform> p : Params;
{{BINDINGS}}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let g = group.x + group.y * p.fold;
//#for k PARTS
  if (g >= p.first{{k}} && g < p.end{{k}}) {
    let base = (g - p.first{{k}}) * ({{LANES}}u * {{PER_LANE}}u);
    for (var j = 0u; j < {{PER_LANE}}u; j++) {
      let first = base + j * {{LANES}}u;
      let i = first + lane;
      if (i < p.outer * p.run{{k}}) {
//#if ALIGNED
        let o = first / p.run{{k}};
//#else
        let o = i / p.run{{k}};
//#endif
        let at = o * p.stride + p.offset{{k}} + i - o * p.run{{k}};
//#if SPLIT
        part{{k}}[i] = joint[at];
//#else
        joint[at] = part{{k}}[i];
//#endif
      }
    }
  }
//#endfor
}
