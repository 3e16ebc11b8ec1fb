// Heads of queries or keys, RMS-normalised, multiplied by a gain and rotated, into the joint sequence of one or two streams:
// n = x rsqrt(mean(x^2) + eps) gain over a head, then (a, b) -> (a cos - b sin, a sin + b cos) for its pairs (2i, 2i+1).
// x [batch, tokens, heads, 2 half] and gain [2 half] of each stream, cosine and sine [joint, half], out [batch, joint, heads,
// 2 half]; the second stream's tokens follow the first's. A row is one head of one token.
//#if LANE_ROWS
// Variant for CPU adapters: a lane owns a row. Grid: ceil(rows / 8) workgroups of 8 for each stream.
//#else
// Variant for GPUs: 16 lanes own a row and add by a tree of fixed order. Grid: ceil(rows / 4) workgroups of 64 for each stream.
//#endif
// Bindings: 1 cosine, 2 sine, 3 x, 4 gain, with TWO 5 and 6 those of the second stream, then out. p.groups: workgroups of
// the first stream. Folded into y with p.fold workgroups a row.

struct Params {
  heads : u32, half : u32, joint : u32, batch : u32, fold : u32, groups : u32,
  tokens : u32, offset : u32, tokens2 : u32, offset2 : u32, eps : f32,
}
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> cosine : array<f32>;
@group(0) @binding(2) var<storage, read_write> sine : array<f32>;
@group(0) @binding(3) var<storage, read_write> x : array<vec2<{{X}}>>;
@group(0) @binding(4) var<storage, read_write> gain : array<vec2<{{GAIN}}>>;
//#if TWO
@group(0) @binding(5) var<storage, read_write> x2 : array<vec2<{{X2}}>>;
@group(0) @binding(6) var<storage, read_write> gain2 : array<vec2<{{GAIN2}}>>;
@group(0) @binding(7) var<storage, read_write> out : array<vec2<f32>>;
//#else
@group(0) @binding(5) var<storage, read_write> out : array<vec2<f32>>;
//#endif
//#if !LANE_ROWS
var<workgroup> partial : array<f32, 64>;
//#endif

fn x_at(second : bool, i : u32) -> vec2<f32> {
//#if TWO
  if (second) { return vec2<f32>(x2[i]); }
//#endif
  return vec2<f32>(x[i]);
}

fn gain_at(second : bool, i : u32) -> vec2<f32> {
//#if TWO
  if (second) { return vec2<f32>(gain2[i]); }
//#endif
  return vec2<f32>(gain[i]);
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let g = group.x + group.y * p.fold;
//#if TWO
  let second = g >= p.groups;
//#else
  let second = false;
//#endif
  let tokens = select(p.tokens, p.tokens2, second);
  let rows = p.batch * tokens * p.heads;
//#if LANE_ROWS
  let row = (g - select(0u, p.groups, second)) * {{LANES}}u + lane;
  if (row >= rows) { return; }
  let first = 0u;
  let hop = 1u;
//#else
  // Lanes past the last row repeat the last one, so that barriers stay uniform; they store the same values.
  let row = min((g - select(0u, p.groups, second)) * 4u + lane / 16u, rows - 1u);
  let first = lane % 16u;
  let hop = 16u;
//#endif
  let base = row * p.half;
  var squares = 0.0;
  for (var i = first; i < p.half; i += hop) {
    let v = x_at(second, base + i);
    squares += v.x * v.x;
    squares += v.y * v.y;
  }
//#if !LANE_ROWS
  partial[lane] = squares;
  workgroupBarrier();
  for (var width = 8u; width > 0u; width = width >> 1u) {
    if (first < width) { partial[lane] += partial[lane + width]; }
    workgroupBarrier();
  }
  squares = partial[lane - first];
//#endif
  let rstd = inverseSqrt(squares * (1.0 / f32(2u * p.half)) + p.eps);
  let token = row / p.heads;
  let at = select(p.offset, p.offset2, second) + token % tokens;
  let to = (((token / tokens) * p.joint + at) * p.heads + row % p.heads) * p.half;
  for (var i = first; i < p.half; i += hop) {
    let v = x_at(second, base + i) * rstd * gain_at(second, i);
    let c = cosine[at * p.half + i];
    let s = sine[at * p.half + i];
    out[to + i] = vec2<f32>(v.x * c - v.y * s, v.x * s + v.y * c);
  }
}
