// Normalisation of rows, without gain: n = (x - mean) * rstd (LayerNorm, and GroupNorm on groups as rows) or n = x * rstd
// with rstd = rsqrt(mean(x^2) + eps) (RMSNorm). Mean first, then the variance of the deviations: two passes lose nothing.
// Also writes stats[row] = (mean, rstd) for the backward pass. Gain, modulation and activation are epilogue steps.
//#if LANE_ROWS
// Variant for CPU adapters: a lane owns a row, no barrier. Grid: ceil(rows / LANES) workgroups. With WIDE four values
// are read and written at a time (width divides by 4), and added in the same order.
//#endif
//#if ONE_SUBGROUP
// Variant for long rows on CPU adapters, where rows beside each other would push each other out of the cache: a workgroup of one
// subgroup owns a row. Grid: rows workgroups.
//#endif
//#if TREE
// Variant for GPUs: a workgroup of 64 owns a row and adds by a tree of fixed order. Grid: rows workgroups.
//#endif
// Bindings: 1 x [rows, width], 2 out, 3 stats [rows, 2]. Folded into y with p.fold workgroups a row.
//#if ONE_SUBGROUP
enable subgroups;
//#endif

struct Params { rows : u32, width : u32, fold : u32, eps : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X_ITEM}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT_ITEM}}>;
@group(0) @binding(3) var<storage, read_write> stats : array<f32>;
{{EPILOGUE_BINDINGS}}
//#if ONE_SUBGROUP
fn total(lane : u32, value : f32) -> f32 { return subgroupAdd(value); }
//#endif
//#if TREE
var<workgroup> partial : array<f32, 64>;

fn total(lane : u32, value : f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { partial[lane] += partial[lane + width]; }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier();
  return sum;
}
//#endif

fn finish(row : u32, column : u32, normalised : f32) -> f32 {
  let index = row * p.width + column;
  var v = normalised;
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
  let base = row * p.width;
  var mean = 0.0;
//#if RMS
//#else
//#if WIDE
  for (var i = 0u; i < p.width / 4u; i++) {
    let v = vec4<f32>(x[base / 4u + i]);
    mean = (((mean + v.x) + v.y) + v.z) + v.w;
  }
//#else
  for (var i = 0u; i < p.width; i++) { mean += f32(x[base + i]); }
//#endif
  mean *= scale;
//#endif
  var squares = 0.0;
//#if WIDE
  for (var i = 0u; i < p.width / 4u; i++) {
    let v = vec4<f32>(x[base / 4u + i]) - mean;
    squares += v.x * v.x;
    squares += v.y * v.y;
    squares += v.z * v.z;
    squares += v.w * v.w;
  }
//#else
  for (var i = 0u; i < p.width; i++) { let d = f32(x[base + i]) - mean; squares += d * d; }
//#endif
  let rstd = inverseSqrt(squares * scale + p.eps);
//#if WIDE
  for (var i = 0u; i < p.width; i += 4u) {
    let v = (vec4<f32>(x[(base + i) / 4u]) - mean) * rstd;
    let y = vec4<f32>(finish(row, i, v.x), finish(row, i + 1u, v.y), finish(row, i + 2u, v.z), finish(row, i + 3u, v.w));
    out[(base + i) / 4u] = {{OUT_ITEM}}(y);
  }
//#else
  for (var i = 0u; i < p.width; i++) { out[base + i] = {{OUT_ITEM}}(finish(row, i, (f32(x[base + i]) - mean) * rstd)); }
//#endif
  stats[row * 2u] = mean;
  stats[row * 2u + 1u] = rstd;
//#else
  // A workgroup past the last row repeats the last one, so that barriers stay uniform; it stores the same values.
  let row = min(g, p.rows - 1u);
  let base = row * p.width;
  var mean = 0.0;
//#if RMS
//#else
  for (var i = lane; i < p.width; i += {{HOP}}u) {
    //#for u UNROLL
    mean += f32(x[base + i + {{u}}u * {{LANES}}u]);
    //#endfor
  }
  mean = total(lane, mean) * scale;
//#endif
  var squares = 0.0;
  for (var i = lane; i < p.width; i += {{HOP}}u) {
    //#for u UNROLL
    let d{{u}} = f32(x[base + i + {{u}}u * {{LANES}}u]) - mean;
    squares += d{{u}} * d{{u}};
    //#endfor
  }
  let rstd = inverseSqrt(total(lane, squares) * scale + p.eps);
  for (var i = lane; i < p.width; i += {{HOP}}u) {
    //#for u UNROLL
    {
      let at = i + {{u}}u * {{LANES}}u;
      out[base + at] = {{OUT_ITEM}}(finish(row, at, (f32(x[base + at]) - mean) * rstd));
    }
    //#endfor
  }
  if (lane == 0u) {
    stats[row * 2u] = mean;
    stats[row * 2u + 1u] = rstd;
  }
//#endif
}
