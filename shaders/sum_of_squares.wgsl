// First pass over a gradient segment: part `first + g` of `sums` becomes the sum of squares of chunk g, and the same
// part of `flags` is 1 where the chunk holds a NaN or an infinity. Finiteness is read from the bits: shading compilers
// may assume that floats are finite. Lanes stride through the chunk and a tree adds them, always in the same order.
// Bindings: 1 x (bits of f32, four a vector), 2 sums, 3 flags. Chunk: 1024 vectors. Grid: one workgroup of LANES a
// chunk, folded into y with p.fold a row.

struct Params { vectors : u32, chunks : u32, first : u32, fold : u32, base : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> sums : array<f32>;
@group(0) @binding(3) var<storage, read_write> flags : array<u32>;

var<workgroup> part : array<f32, {{LANES}}>;
var<workgroup> bad : array<u32, {{LANES}}>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let chunk = group.x + group.y * p.fold;
  let last = min((chunk + 1u) * 1024u, p.vectors);
  var sum = vec4<f32>(0.0);
  var broken = vec4<bool>(false);
  for (var i = chunk * 1024u + lane; i < last; i += {{LANES}}u) {
    let bits = x[i];
    broken = broken | ((bits & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u));
    let value = bitcast<vec4<f32>>(bits);
    sum += value * value;
  }
  part[lane] = (sum.x + sum.y) + (sum.z + sum.w);
  bad[lane] = select(0u, 1u, any(broken));
  workgroupBarrier();
  for (var width = {{LANES}}u / 2u; width > 0u; width = width >> 1u) {
    if (lane < width) {
      part[lane] += part[lane + width];
      bad[lane] |= bad[lane + width];
    }
    workgroupBarrier();
  }
  if (lane == 0u && chunk < p.chunks) {
    sums[p.first + chunk] = part[0];
    flags[p.first + chunk] = bad[0];
  }
}
