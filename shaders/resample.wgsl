// Sparse linear resampling of the middle of [outer, length, inner] with a table of rows (start, taps, weights): out[o,
// j, i] = sum_t weight_j[t] * x[o, start_j + t, i]. Row j of the table is `stride` words: the first input index, the
// number of taps, then the weights as bits of f32. A transposed table (src/ops/resample.ts) makes this its own
// gradient.
// Bindings: 1 x, 2 table, 3 out; operands of the epilogue from 4. A thread makes one value; grid: ceil(outer * count *
// inner / 64) workgroups of 64, folded into y with p.fold a row. Limit: fewer than 2^32 values.

struct Params { size : u32, length : u32, count : u32, inner : u32, stride : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> table : array<u32>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let index = (group.x + group.y * p.fold) * 64u + lane;
  if (index >= p.size) { return; }
  let i = index % p.inner;
  let oj = index / p.inner;
  let row = (oj % p.count) * p.stride;
  let taps = table[row + 1u];
  var at = ((oj / p.count) * p.length + table[row]) * p.inner + i;
  var v = 0.0;
  for (var t = 0u; t < taps; t++) {
    v += bitcast<f32>(table[row + 2u + t]) * f32(x[at]);
    at += p.inner;
  }
  {{EPILOGUE}}
  out[index] = v;
}
