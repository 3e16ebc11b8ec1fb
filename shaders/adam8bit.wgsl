// AdamW with moments of 8 bits (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022): each block of 256
// values keeps codes into a fixed map and its largest magnitude, moment = map[code] * largest. The moments are updated as
// f32 (formula: adamw.wgsl), used, and rounded to the nearest entry of value / largest.
// State of a block, in words of u32: 64 of codes for m (four in a word), 64 for v, the bits of both largest magnitudes.
// Where the group's word 15 is set nothing is changed. Part `first + c` of `parts` becomes (sum of (new p - old p)^2, sum
// of p^2) of chunk c.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 4, src/optim/tensors.ts),
// 4 maps (256 entries for m, then 256 for v, rising), 5 parts, 6 p, 7 moments. Gradient and p are vectors of four.
// Chunk: 4096 values of one tensor. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> maps : array<f32>;
@group(0) @binding(5) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> parameters : array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> moments : array<u32>;

const ROW = 4u;
const BLOCK_WORDS = 130u;
{{FIND_ROW}}

var<workgroup> map : array<f32, 512>;
var<workgroup> part : array<vec2<f32>, 64>;

fn value(codes : u32, which : u32) -> vec4<f32> {
  let c = (vec4<u32>(codes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
  return vec4<f32>(map[which + c.x], map[which + c.y], map[which + c.z], map[which + c.w]);
}

// Nearest entry of the map that begins at `which`, the lower one of two equally near.
fn code(x : f32, which : u32) -> u32 {
  var low = 0u;
  var high = 255u;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (map[which + middle] <= x) { low = middle; } else { high = middle; }
  }
  return select(high, low, x - map[which + low] <= map[which + high] - x);
}

fn codes(x : vec4<f32>, which : u32) -> u32 {
  return code(x.x, which) | (code(x.y, which) << 8u) | (code(x.z, which) << 16u) | (code(x.w, which) << 24u);
}

fn largest(x : vec4<f32>) -> f32 {
  return max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w)));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  for (var i = lane; i < 512u; i += 64u) { map[i] = maps[i]; }
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u] / 4u;
  let vectors = (table[row + 2u] + 3u) / 4u;
  let chunk = item - table[row];
  let step_size = state[p.base];
  let decay = state[p.base + 1u];
  let second_scale = state[p.base + 2u];
  let eps = state[p.base + 3u];
  let first_rest = state[p.base + 4u];
  let second_keep = state[p.base + 5u];
  let second_rest = state[p.base + 6u];
  let factor = state[p.base + 14u];
  let stopped = state[p.base + 15u] != 0.0;
  var sum = vec2<f32>(0.0);
  workgroupBarrier();
  for (var b = 0u; b < 16u; b++) {
    let block = chunk * 16u + b;
    let i = block * 64u + lane;
    let at = table[row + 3u] + block * BLOCK_WORDS;
    let inside = item < p.items && i < vectors;
    let taken = inside && !stopped;
    var m = vec4<f32>(0.0);
    var v = vec4<f32>(0.0);
    if (inside) {
      var current = parameters[start + i];
      if (taken) {
        let g = factor * gradient[start + i];
        let old_first = value(moments[at + lane], 0u) * bitcast<f32>(moments[at + 128u]);
        let old_second = value(moments[at + 64u + lane], 256u) * bitcast<f32>(moments[at + 129u]);
        m = old_first + first_rest * (g - old_first);
        v = second_keep * old_second + second_rest * g * g;
        let change = decay * current + step_size * (m / (sqrt(v) * second_scale + eps));
        current = current - change;
        parameters[start + i] = current;
        sum.x += dot(change, change);
      }
      sum.y += dot(current, current);
    }
    part[lane] = vec2<f32>(largest(m), largest(v));
    storageBarrier();
    workgroupBarrier();
    for (var width = 32u; width > 0u; width = width >> 1u) {
      if (lane < width) { part[lane] = max(part[lane], part[lane + width]); }
      workgroupBarrier();
    }
    let top = part[0];
    workgroupBarrier();
    if (taken) {
      // A block of zeros keeps the code of zero.
      let scale = select(vec2<f32>(1.0), top, top > vec2<f32>(0.0));
      moments[at + lane] = codes(m / scale.x, 0u);
      moments[at + 64u + lane] = codes(v / scale.y, 256u);
      if (lane == 0u) {
        moments[at + 128u] = bitcast<u32>(top.x);
        moments[at + 129u] = bitcast<u32>(top.y);
      }
    }
  }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u && item < p.items) { parts[p.first + item] = part[0]; }
}
