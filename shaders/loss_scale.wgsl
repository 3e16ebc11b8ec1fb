// Dynamic loss scale (Micikevicius et al., "Mixed Precision Training", 2018), decided on the device: a refused step halves
// it, not below 1; p.interval good steps in a row double it, not above 2^24, where f32 gradients still have room.
// counters = (good steps in a row, 1 - b1^n, 1 - b2^n, unused) with n the steps that were taken.
//#if CORRECTED
// AdamW's words get their corrections here, because the host does not know how many steps were refused:
// state[0] = rate / (1 - b1^n), state[2] = 1 / sqrt(1 - b2^n). The recurrence c += (1 - b)(1 - c) keeps c's small values
// exact.
//#endif
// Bindings: 1 state (words of all groups, src/optim/step.ts), 2 report, 3 scale, 4 counters. Grid: one invocation.

struct Params { groups : u32, interval : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> state : array<f32>;
@group(0) @binding(2) var<storage, read_write> report : array<f32>;
@group(0) @binding(3) var<storage, read_write> scale : array<f32>;
@group(0) @binding(4) var<storage, read_write> counters : array<f32>;

@compute @workgroup_size(1)
fn main() {
  var value = scale[0];
  var good = 0.0;
  if (state[15] != 0.0) {
    value = max(1.0, 0.5 * value);
  } else {
    good = counters[0] + 1.0;
    if (good >= f32(p.interval)) {
      value = max(value, min(2.0 * value, 16777216.0));
      good = 0.0;
    }
//#if CORRECTED
    let first = counters[1] + state[4] * (1.0 - counters[1]);
    let second = counters[2] + state[6] * (1.0 - counters[2]);
    counters[1] = first;
    counters[2] = second;
    for (var g = 0u; g < p.groups; g++) {
      state[16u * g] = state[16u * g] / first;
      state[16u * g + 2u] = 1.0 / sqrt(second);
    }
//#endif
  }
  scale[0] = value;
  counters[0] = good;
  report[5] = value;
}
