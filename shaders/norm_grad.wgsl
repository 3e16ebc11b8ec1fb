// Input gradient of row normalisation: dx = rstd * (dy - mean(dy) - n * mean(dy * n)), n = (x - mean) * rstd; RMSNorm has no
// mean(dy) term. Means are over the row. Variants and mapping as in norm.wgsl.
// WIDE: four values at a time, added in the same order.
//#if SCALED
// This variant takes dy (1 + scale) for dy, with one row of scale for every p.tokens rows of x.
// Bindings: 1 dy [rows, width], 2 x, 3 stats [rows, 2], 4 scale, 5 dx. Folded into y with p.fold workgroups a row.
//#else
// Bindings: 1 dy [rows, width], 2 x, 3 stats [rows, 2], 4 dx. Folded into y with p.fold workgroups a row.
//#endif
//#if ONE_SUBGROUP
enable subgroups;
//#endif

struct Params { rows : u32, width : u32, fold : u32, tokens : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dy : array<{{F32_ITEM}}>;
@group(0) @binding(2) var<storage, read_write> x : array<{{X_ITEM}}>;
@group(0) @binding(3) var<storage, read_write> stats : array<f32>;
//#if SCALED
@group(0) @binding(4) var<storage, read_write> scale_of : array<{{F32_ITEM}}>;
@group(0) @binding(5) var<storage, read_write> dx : array<{{F32_ITEM}}>;
//#else
@group(0) @binding(4) var<storage, read_write> dx : array<{{F32_ITEM}}>;
//#endif
{{EPILOGUE_BINDINGS}}
//#if TREE
var<workgroup> partial : array<vec2<f32>, 64>;
//#endif

// What arrives at item i of the binding; `from_scale` is the item where the row of scale begins, less that of the row itself.
fn arriving(i : u32, from_scale : u32) -> {{F32_ITEM}} {
  let d = dy[i];
//#if SCALED
  return d + d * scale_of[i + from_scale];
//#else
  return d;
//#endif
}

fn finish(row : u32, column : u32, gradient : f32) -> f32 {
  let index = row * p.width + column;
  var v = gradient;
  {{EPILOGUE}}
  return v;
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
  let hop = {{HOP}}u;
//#endif
  let base = row * p.width;
  let mean = stats[row * 2u];
  let rstd = stats[row * 2u + 1u];
//#if WIDE
  let items = p.width / 4u;
//#else
  let items = p.width;
//#endif
  let from_scale = (row / p.tokens) * items - row * items;
  var sums = vec2<f32>(0.0, 0.0);
//#if WIDE
  for (var i = 0u; i < p.width / 4u; i++) {
    let d = arriving(base / 4u + i, from_scale);
    let n = d * (vec4<f32>(x[base / 4u + i]) - mean) * rstd;
    sums += vec2<f32>(d.x, n.x);
    sums += vec2<f32>(d.y, n.y);
    sums += vec2<f32>(d.z, n.z);
    sums += vec2<f32>(d.w, n.w);
  }
//#else
  for (var i = first; i < p.width; i += hop) {
    //#for u UNROLL
    {
      let at = base + i + {{u}}u * {{LANES}}u;
      let d = arriving(at, from_scale);
      sums += vec2<f32>(d, d * (f32(x[at]) - mean) * rstd);
    }
    //#endfor
  }
//#endif
//#if ONE_SUBGROUP
  sums = subgroupAdd(sums);
//#endif
//#if TREE
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
//#if WIDE
  for (var i = 0u; i < p.width; i += 4u) {
    let n = (vec4<f32>(x[(base + i) / 4u]) - mean) * rstd;
    let v = rstd * (arriving((base + i) / 4u, from_scale) - sums.x - n * sums.y);
    dx[(base + i) / 4u] =
      vec4<f32>(finish(row, i, v.x), finish(row, i + 1u, v.y), finish(row, i + 2u, v.z), finish(row, i + 3u, v.w));
  }
//#else
  for (var i = first; i < p.width; i += hop) {
    //#for u UNROLL
    {
      let at = i + {{u}}u * {{LANES}}u;
      let n = (f32(x[base + at]) - mean) * rstd;
      dx[base + at] = finish(row, at, rstd * (arriving(base + at, from_scale) - sums.x - n * sums.y));
    }
    //#endfor
  }
//#endif
}
