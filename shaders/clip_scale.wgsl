// Second pass: norm = sqrt(sum of all parts), factor = min(1, max_norm / (norm + 1e-6)) as torch's clip_grad_norm_
// does, 1 where max_norm is 0. `state` receives all that the update kernel reads: the 16 scalars (src/optim/adamw.ts)
// with norm, factor and flag in the last three words. A norm that overflows sets the flag as well: no factor can mend
// it.
// Bindings: 1 sums, 2 flag, 3 scalars, 4 state. Grid: one workgroup of 256; lanes stride, a tree adds them in fixed
// order.

struct Params { chunks : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> sums : array<f32>;
@group(0) @binding(2) var<storage, read_write> flag : array<u32>;
@group(0) @binding(3) var<storage, read_write> scalars : array<f32>;
@group(0) @binding(4) var<storage, read_write> state : array<f32>;

var<workgroup> part : array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane : u32) {
  var sum = 0.0;
  for (var i = lane; i < p.chunks; i += 256u) { sum += sums[i]; }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane < 13u) { state[lane] = scalars[lane]; }
  if (lane == 13u) {
    let total = part[0];
    let norm = sqrt(total);
    let max_norm = scalars[8];
    var factor = 1.0;
    if (max_norm > 0.0) { factor = min(1.0, max_norm / (norm + 1e-6)); }
    let overflow = (bitcast<u32>(total) & 0x7f800000u) == 0x7f800000u;
    state[13] = norm;
    state[14] = factor;
    state[15] = select(0.0, 1.0, overflow || flag[0] != 0u);
  }
}
