// Gradient of a table that was read by ids: out[r, d] = sum of dy[n, d] over all n with ids[n] = r, n rising, so that the
// order of the additions never changes.
// Bindings: 1 ids [count], 2 dy [count, width], 3 out [entries, width]. A workgroup of 64 owns a row of the table and
// reads the ids at shared addresses. Grid: entries workgroups, folded into y with p.fold a row.

struct Params { entries : u32, width : u32, count : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> ids : array<u32>;
@group(0) @binding(2) var<storage, read_write> dy : array<{{DY}}>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let row = group.x + group.y * p.fold;
  if (row >= p.entries) { return; }
  for (var d = lane; d < p.width; d += 64u) {
    var sum = 0.0;
    for (var n = 0u; n < p.count; n++) {
      if (ids[n] == row) { sum += f32(dy[n * p.width + d]); }
    }
    out[row * p.width + d] = sum;
  }
}
