// Second pass: norm = sqrt(sum of all parts), factor = min(1, max_norm / (norm + 1e-6)) as torch's clip_grad_norm_
// does, 1 where max_norm is 0. `state` receives all that the update kernels read: the 16 words of each group
// (src/optim/step.ts) with norm, factor and flag in the last three. A norm that overflows sets the flag as well: no
// factor can mend it.
//#if LOSS_SCALE
// Gradients are those of the loss times loss_scale[0]: norm and factor are divided by it.
//#endif
// Bindings: 1 sums, 2 flag, 3 scalars, 4 loss_scale (where LOSS_SCALE), the last one state. Grid: one workgroup of 256;
// lanes stride, a tree adds them in fixed order.

struct Params { chunks : u32, groups : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> sums : array<f32>;
@group(0) @binding(2) var<storage, read_write> flag : array<u32>;
@group(0) @binding(3) var<storage, read_write> scalars : array<f32>;
//#if LOSS_SCALE
@group(0) @binding(4) var<storage, read_write> loss_scale : array<f32>;
//#endif
@group(0) @binding({{STATE}}) var<storage, read_write> state : array<f32>;

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
  for (var i = lane; i < 16u * p.groups; i += 256u) {
    if (i % 16u < 13u) { state[i] = scalars[i]; }
  }
  if (lane == 13u) {
    let total = part[0];
//#if LOSS_SCALE
    let scale = loss_scale[0];
    let norm = sqrt(total) / scale;
//#else
    let norm = sqrt(total);
//#endif
    let max_norm = scalars[8];
    var factor = 1.0;
    if (max_norm > 0.0) { factor = min(1.0, max_norm / (norm + 1e-6)); }
//#if LOSS_SCALE
    factor = factor / scale;
//#endif
    let overflow = (bitcast<u32>(total) & 0x7f800000u) == 0x7f800000u;
    let stopped = select(0.0, 1.0, overflow || flag[0] != 0u);
    for (var g = 0u; g < p.groups; g++) {
      state[16u * g + 13u] = norm;
      state[16u * g + 14u] = factor;
      state[16u * g + 15u] = stopped;
    }
  }
}
