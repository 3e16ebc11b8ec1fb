// Gradients of heads.wgsl: dz = dy rotated back, dn = dz gain, dx = rstd (dn - n mean(dn n)), n = x rstd, rstd computed again.
// dy [batch, joint, heads, 2 half], x and dx [batch, tokens, heads, 2 half], gain [2 half], cosine and sine [joint, half].
// With TERMS also dz n, whose sum over all rows is the gain's gradient. A row is one head of one token.
//#if LANE_ROWS
// Variant for CPU adapters: a lane owns a row. Grid: ceil(rows / 8) workgroups of 8 for each stream.
//#else
// Variant for GPUs: 16 lanes own a row and add by a tree of fixed order. Grid: ceil(rows / 4) workgroups of 64 for each stream.
//#endif
// Bindings: 1 dy, 2 cosine, 3 sine, 4 x, 5 gain, with TWO 6 and 7 those of the second stream, then dx, with TWO the second
// stream's dx, with TERMS dz n. TWO and TERMS exclude each other. p.groups: workgroups of the first stream. Folded into y
// with p.fold workgroups a row.

struct Params {
  heads : u32, half : u32, joint : u32, batch : u32, fold : u32, groups : u32,
  tokens : u32, offset : u32, tokens2 : u32, offset2 : u32, eps : f32,
}
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dy : array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> cosine : array<f32>;
@group(0) @binding(3) var<storage, read_write> sine : array<f32>;
@group(0) @binding(4) var<storage, read_write> x : array<vec2<{{X}}>>;
@group(0) @binding(5) var<storage, read_write> gain : array<vec2<{{GAIN}}>>;
//#if TWO
@group(0) @binding(6) var<storage, read_write> x2 : array<vec2<{{X2}}>>;
@group(0) @binding(7) var<storage, read_write> gain2 : array<vec2<{{GAIN2}}>>;
@group(0) @binding(8) var<storage, read_write> dx : array<vec2<f32>>;
@group(0) @binding(9) var<storage, read_write> dx2 : array<vec2<f32>>;
//#else
@group(0) @binding(6) var<storage, read_write> dx : array<vec2<f32>>;
//#if TERMS
@group(0) @binding(7) var<storage, read_write> terms : array<vec2<f32>>;
//#endif
//#endif
//#if !LANE_ROWS
var<workgroup> partial : array<vec2<f32>, 64>;
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

// Pair `from` of dy, turned back by the angle of pair `turn` of the tables.
fn turned(from_ : u32, turn : u32) -> vec2<f32> {
  let d = dy[from_];
  let c = cosine[turn];
  let s = -sine[turn];
  return vec2<f32>(d.x * c - d.y * s, d.x * s + d.y * c);
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
  let token = row / p.heads;
  let at = select(p.offset, p.offset2, second) + token % tokens;
  let from_ = (((token / tokens) * p.joint + at) * p.heads + row % p.heads) * p.half;
  // Sums of x^2 and of dn x: the statistics of the forward pass and the mean that the gradient takes off.
  var sums = vec2<f32>(0.0, 0.0);
  for (var i = first; i < p.half; i += hop) {
    let v = x_at(second, base + i);
    let dn = turned(from_ + i, at * p.half + i) * gain_at(second, i);
    sums += vec2<f32>(v.x * v.x, dn.x * v.x);
    sums += vec2<f32>(v.y * v.y, dn.y * v.y);
  }
//#if !LANE_ROWS
  partial[lane] = sums;
  workgroupBarrier();
  for (var width = 8u; width > 0u; width = width >> 1u) {
    if (first < width) { partial[lane] += partial[lane + width]; }
    workgroupBarrier();
  }
  sums = partial[lane - first];
//#endif
  let scale = 1.0 / f32(2u * p.half);
  let rstd = inverseSqrt(sums.x * scale + p.eps);
  let mean = sums.y * rstd * scale;
  for (var i = first; i < p.half; i += hop) {
    let n = x_at(second, base + i) * rstd;
    let dz = turned(from_ + i, at * p.half + i);
    let gradient = rstd * (dz * gain_at(second, i) - n * mean);
//#if TWO
    if (second) { dx2[base + i] = gradient; } else { dx[base + i] = gradient; }
//#else
    dx[base + i] = gradient;
//#if TERMS
    terms[base + i] = dz * n;
//#endif
//#endif
  }
}
