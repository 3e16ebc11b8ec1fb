// Sum over the middle of [outer, length, inner]: out[o, c, i] = scale * sum_l x[o, l, i], l in chunk c, in fixed order.
// A long sum is cut into chunks by the first pass and finished by a second pass over [outer, chunks, inner].
//#if ROWS
// Variant for inner = 1: a workgroup of 64 adds one (o, c); lanes stride through the chunk, then a tree in workgroup
// memory adds the lanes, always in the same order. Grid: outer * chunks workgroups.
//#else
// Variant for inner > 1: a thread adds one (o, c, i). Grid: ceil(outer * chunks * inner / LANES) workgroups of LANES.
//#if WIDE
// It adds four neighbours along i, and all sizes count vectors.
//#endif
//#endif
// ACCUMULATE adds to what out holds, which is how bias gradients are collected. Bindings: 1 x, 2 out. Grids are folded into y with p.fold workgroups a row.

struct Params { outer : u32, length : u32, inner : u32, chunks : u32, per_chunk : u32, fold : u32, scale : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X_ITEM}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{SUM}}>;
{{EPILOGUE_BINDINGS}}
//#if ROWS
var<workgroup> partial : array<f32, 64>;
//#endif

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let g = group.x + group.y * p.fold;
//#if ROWS
  let o = g / p.chunks;
  let c = g % p.chunks;
  var sum = 0.0;
  let inside = o < p.outer;
  if (inside) {
    let last = min((c + 1u) * p.per_chunk, p.length);
    for (var l = c * p.per_chunk + lane; l < last; l += 64u) { sum += f32(x[o * p.length + l]); }
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { partial[lane] += partial[lane + width]; }
    workgroupBarrier();
  }
  if (inside && lane == 0u) {
    let index = g;
    var v = partial[0] * p.scale;
    {{EPILOGUE}}
//#if ACCUMULATE
    v += out[index];
//#endif
    out[index] = v;
  }
//#else
  let item = g * {{LANES}}u + lane;
  if (item >= p.outer * p.chunks * p.inner) { return; }
//#if WIDE
  let index = 4u * item;
//#else
  let index = item;
//#endif
  let i = item % p.inner;
  let oc = item / p.inner;
  let o = oc / p.chunks;
  let c = oc % p.chunks;
  let last = min((c + 1u) * p.per_chunk, p.length);
  var sum = {{SUM}}();
  var l = c * p.per_chunk;
  var at = (o * p.length + l) * p.inner + i;
  // Four loads in flight; the sum goes on in the same order.
  for (; l + 4u <= last; l += 4u) {
    let first = {{SUM}}(x[at]);
    let second = {{SUM}}(x[at + p.inner]);
    let third = {{SUM}}(x[at + 2u * p.inner]);
    let fourth = {{SUM}}(x[at + 3u * p.inner]);
    sum = (((sum + first) + second) + third) + fourth;
    at += 4u * p.inner;
  }
  for (; l < last; l++) {
    sum += {{SUM}}(x[at]);
    at += p.inner;
  }
  var v = sum * p.scale;
  {{EPILOGUE}}
//#if ACCUMULATE
  v += out[item];
//#endif
  out[item] = v;
//#endif
}
