//#if BACKWARD
// Gradient of softmax over rows of [rows, length]: out = y * (dy - sum(dy * y)). Bindings: 1 y, 2 dy, 3 out.
//#else
// Softmax over rows of [rows, length]: out = exp(x - max(x)) / sum(exp(x - max(x))). Bindings: 1 x, 2 out.
//#endif
//#if LANE_ROWS
// Variant for CPU adapters: a lane owns a row. Grid: ceil(rows / LANES) workgroups, folded into y with p.fold a row.
//#endif
//#if ONE_SUBGROUP
// Variant for long rows on CPU adapters: a workgroup of one subgroup owns a row. Grid: rows workgroups, folded likewise.
enable subgroups;
//#endif
//#if TREE
// A workgroup of 64 owns a row; lanes stride through it and a tree in workgroup memory joins them, always in the same
// order. Grid: rows workgroups, folded into y with p.fold a row.
//#endif

struct Params { rows : u32, length : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X}}>;
//#if BACKWARD
@group(0) @binding(2) var<storage, read_write> dy : array<{{DY}}>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;
//#else
@group(0) @binding(2) var<storage, read_write> out : array<f32>;
//#endif
//#if LANE_ROWS
fn join_sum(lane : u32, value : f32) -> f32 { return value; }
fn join_max(lane : u32, value : f32) -> f32 { return value; }
//#endif
//#if ONE_SUBGROUP
fn join_sum(lane : u32, value : f32) -> f32 { return subgroupAdd(value); }
fn join_max(lane : u32, value : f32) -> f32 { return subgroupMax(value); }
//#endif
//#if TREE
var<workgroup> shared_ : array<f32, 64>;

fn join_sum(lane : u32, value : f32) -> f32 {
  workgroupBarrier();
  shared_[lane] = value;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { shared_[lane] += shared_[lane + width]; }
    workgroupBarrier();
  }
  return shared_[0];
}
//#if !BACKWARD
fn join_max(lane : u32, value : f32) -> f32 {
  shared_[lane] = value;
  workgroupBarrier();
  for (var width = 32u; width > 0u; width = width >> 1u) {
    if (lane < width) { shared_[lane] = max(shared_[lane], shared_[lane + width]); }
    workgroupBarrier();
  }
  return shared_[0];
}
//#endif
//#endif

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
//#if LANE_ROWS
  let row = (group.x + group.y * p.fold) * {{LANES}}u + lane;
  let from_ = row * p.length;
  let hop = 1u;
//#else
  let row = group.x + group.y * p.fold;
  let from_ = row * p.length + lane;
  let hop = {{LANES}}u;
//#endif
  if (row >= p.rows) { return; }
  let last = (row + 1u) * p.length;
//#if BACKWARD
  var part = 0.0;
  for (var i = from_; i < last; i += hop) { part += f32(x[i]) * f32(dy[i]); }
  let total = join_sum(lane, part);
  for (var i = from_; i < last; i += hop) { out[i] = f32(x[i]) * (f32(dy[i]) - total); }
//#else
  var highest = -3.0e38;
  for (var i = from_; i < last; i += hop) { highest = max(highest, f32(x[i])); }
  let top = join_max(lane, highest);
  var part = 0.0;
  for (var i = from_; i < last; i += hop) { part += exp(f32(x[i]) - top); }
  let total = join_sum(lane, part);
  for (var i = from_; i < last; i += hop) { out[i] = exp(f32(x[i]) - top) / total; }
//#endif
}
