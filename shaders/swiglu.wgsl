// Gated activation of rows whose halves lie beside each other: out[r, i] = silu(x[r, i]) * x[r, half + i], silu(g) = g sigmoid(g).
//#if ALIGNED
// This variant: neighbouring lanes of a workgroup belong to one row.
//#endif
// Bindings: 1 x [rows, 2 half], 2 out [rows, half]. Grid: ceil(rows * half / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values
// a lane, folded into y with p.fold a row.

struct Params { count : u32, half : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> out : array<f32>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i < p.count) {
//#if ALIGNED
      let at = i + ((i - lane) / p.half) * p.half;
//#else
      let at = i + (i / p.half) * p.half;
//#endif
      let gate = f32(x[at]);
      out[i] = gate * (1.0 / (1.0 + exp(-clamp(gate, -80.0, 80.0)))) * f32(x[at + p.half]);
    }
  }
}
