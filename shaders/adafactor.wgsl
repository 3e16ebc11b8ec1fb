// Adafactor's step (Shazeer & Stern 2018), chunk by chunk:
//   u = a * update;  m = b1 * m + (1 - b1) * u (where FIRST, else m = u);  p -= decay * p + m
// with a and decay of the tensor from adafactor_rates.wgsl and the update from shaders/lib/adafactor_direction.wgsl. Where
// the group's word 15 is set nothing is changed. Part p.first + c of parts becomes (sum of (new p - old p)^2, sum of p^2)
// of chunk c.
// Bindings: 1 gradient, 2 state (words of all groups, src/optim/step.ts), 3 table (rows of 16, src/optim/rules/
// adafactor.ts), 4 results (means of the rows, then rates), 5 moments, 6 parts, 7 p, 8 m (where FIRST).
// Chunk: 4096 values of one tensor. Grid: one workgroup of 64 a chunk, folded into y with p.fold a row.

struct Params { row : u32, rows : u32, items : u32, fold : u32, base : u32, first : u32, results : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> gradient : array<f32>;
@group(0) @binding(2) var<storage, read_write> state : array<f32>;
@group(0) @binding(3) var<storage, read_write> table : array<u32>;
@group(0) @binding(4) var<storage, read_write> results : array<f32>;
@group(0) @binding(5) var<storage, read_write> moments : array<f32>;
@group(0) @binding(6) var<storage, read_write> parts : array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> parameters : array<f32>;
//#if FIRST
@group(0) @binding(8) var<storage, read_write> first_moment : array<f32>;
//#endif

const ROW = 16u;
{{FIND_ROW}}
{{DIRECTION}}

{{LANE_SUM}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let item = group.x + group.y * p.fold;
  let row = find_row(p.row, p.rows, 0u, item);
  let start = table[row + 1u];
  let begin = (item - table[row]) * 4096u;
  let last = select(0u, min(begin + 4096u, table[row + 2u]), item < p.items);
  let tensor = p.results + 2u * (row / ROW - p.row);
  let scale = results[tensor];
  let decay = results[tensor + 1u];
  let first_rest = state[p.base + 6u];
  let factor = state[p.base + 14u];
  // Word 10 marks a group that stays as it is.
  let stopped = state[p.base + 15u] != 0.0 || state[p.base + 10u] != 0.0;
  var sum = vec2<f32>(0.0);
  for (var i = begin + lane; i < last; i += 64u) {
    var value = parameters[start + i];
    if (!stopped) {
      var m = scale * direction(row, i, factor * gradient[start + i]);
//#if FIRST
      let old = first_moment[start + i];
      m = old + first_rest * (m - old);
      first_moment[start + i] = m;
//#endif
      let change = decay * value + m;
      value = value - change;
      parameters[start + i] = value;
      sum.x += change * change;
    }
    sum.y += value * value;
  }
  let total = lane_sum(lane, sum);
  if (lane == 0u && item < p.items) { parts[p.first + item] = total; }
}
