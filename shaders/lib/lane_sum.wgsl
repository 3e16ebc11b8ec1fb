// The sum over a workgroup of 64 lanes, in a fixed order; only lane 0 may use what is returned. Called once by each optimizer
// kernel, at its end, by all lanes.
var<workgroup> part : array<vec2<f32>, 64>;

fn lane_sum(lane : u32, own : vec2<f32>) -> vec2<f32> {
  part[lane] = own;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  return part[0];
}
