// Input gradient of row normalisation: dx = rstd * (dy - mean(dy) - n * mean(dy * n)), n = (x - mean) * rstd; RMSNorm has no
// mean(dy) term. Means are over the row. Variants and mapping as in norm.wgsl.
//#if SCALED
// This variant takes dy (1 + scale) for dy, with one row of scale for every p.tokens rows of x.
// Bindings: 1 dy [rows, width], 2 x, 3 stats [rows, 2], 4 scale, 5 dx. Folded into y with p.fold workgroups a row.
//#else
// Bindings: 1 dy [rows, width], 2 x, 3 stats [rows, 2], 4 dx. Folded into y with p.fold workgroups a row.
//#endif

struct Params { rows : u32, width : u32, fold : u32, tokens : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dy : array<f32>;
@group(0) @binding(2) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(3) var<storage, read_write> stats : array<f32>;
//#if SCALED
@group(0) @binding(4) var<storage, read_write> scale_ : array<f32>;
@group(0) @binding(5) var<storage, read_write> dx : array<f32>;
//#else
@group(0) @binding(4) var<storage, read_write> dx : array<f32>;
//#endif
{{EPILOGUE_BINDINGS}}
//#if LANE_ROWS
//#else
var<workgroup> partial : array<vec2<f32>, 64>;
//#endif

fn arriving(row : u32, i : u32) -> f32 {
  let d = dy[row * p.width + i];
//#if SCALED
  return d + d * scale_[(row / p.tokens) * p.width + i];
//#else
  return d;
//#endif
}

fn store(index : u32, gradient : f32) {
  var v = gradient;
  {{EPILOGUE}}
  dx[index] = v;
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let g = group.x + group.y * p.fold;
  let scale = 1.0 / f32(p.width);
//#if LANE_ROWS
  let row = g * {{LANES}}u + lane;
  if (row >= p.rows) { return; }
  let first = 0u;
  let hop = 1u;
//#else
  let row = min(g, p.rows - 1u);
  let first = lane;
  let hop = 64u;
//#endif
  let base = row * p.width;
  let mean = stats[row * 2u];
  let rstd = stats[row * 2u + 1u];
  var sums = vec2<f32>(0.0, 0.0);
  for (var i = first; i < p.width; i += hop) {
    let d = arriving(row, i);
    sums += vec2<f32>(d, d * (f32(x[base + i]) - mean) * rstd);
  }
//#if LANE_ROWS
//#else
  partial[lane] = sums;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { partial[lane] += partial[lane + width]; }
    workgroupBarrier();
  }
  sums = partial[0];
//#endif
  sums *= scale;
//#if RMS
  sums.x = 0.0;
//#endif
  for (var i = first; i < p.width; i += hop) {
    let n = (f32(x[base + i]) - mean) * rstd;
    store(base + i, rstd * (arriving(row, i) - sums.x - n * sums.y));
  }
}
