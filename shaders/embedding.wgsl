// Rows of a table by ids: out[n, d] = table[ids[n], d]; an id outside the table gives a zero row.
// Bindings: 1 table [entries, width], 2 ids [count], 3 out [count, width], operands of the epilogue from 4.
// Grid: ceil(count * width / 256) workgroups of 64, folded into y with p.fold a row.

struct Params { entries : u32, width : u32, count : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> table : array<{{TABLE}}>;
@group(0) @binding(2) var<storage, read_write> ids : array<u32>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * 256u + lane;
  for (var j = 0u; j < 4u; j++) {
    let index = base + j * 64u;
    if (index < p.count * p.width) {
      let id = ids[index / p.width];
      var v = 0.0;
      if (id < p.entries) { v = f32(table[id * p.width + index % p.width]); }
      {{EPILOGUE}}
      out[index] = v;
    }
  }
}
