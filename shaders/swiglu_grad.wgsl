// Gradient of swiglu.wgsl, both halves of a row: dx[r, i] = dy up silu'(gate), dx[r, half + i] = dy silu(gate), with
// silu'(g) = s (1 + g (1 - s)), s = sigmoid(g).
//#if ALIGNED
// This variant: neighbouring lanes of a workgroup belong to one row.
//#endif
// Bindings: 1 dy [rows, half], 2 x [rows, 2 half], 3 dx. Grid: as swiglu.wgsl.

struct Params { count : u32, half : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dy : array<f32>;
@group(0) @binding(2) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(3) var<storage, read_write> dx : array<f32>;

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
      let s = 1.0 / (1.0 + exp(-clamp(gate, -80.0, 80.0)));
      let d = dy[i];
      dx[at] = d * f32(x[at + p.half]) * s * (1.0 + gate * (1.0 - s));
      dx[at + p.half] = d * (gate * s);
    }
  }
}
