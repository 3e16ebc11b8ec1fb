// What a run logs about an update: report = (gradient norm before clipping, flag, norm of the update, norm of the
// parameters).
// Bindings: 1 state (src/optim/step.ts; norm and flag are the same for all groups), 2 parts (two sums of squares a chunk), 3 report. Grid: one workgroup of 256.

struct Params { chunks : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> state : array<f32>;
@group(0) @binding(2) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> report : array<f32>;

var<workgroup> part : array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane : u32) {
  var sum = vec2<f32>(0.0);
  for (var i = lane; i < p.chunks; i += 256u) { sum += parts[i]; }
  part[lane] = sum;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width >> 1u) {
    if (lane < width) { part[lane] += part[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u) {
    report[0] = state[13];
    report[1] = state[15];
    report[2] = sqrt(part[0].x);
    report[3] = sqrt(part[0].y);
  }
}
