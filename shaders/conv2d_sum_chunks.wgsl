// result[e] = Σ_c parts[c, e] in the order of c: the second pass of reductions that were cut into chunks (weight
// gradients, products with a long inner side). Same chunks, same bits.
//
// Bindings: 0 params, 1 parts [chunks, count] f32, 2 result [count], epilogue operands from 3 on.
// Mapping: one invocation a value, 64 in a workgroup. The epilogue sees `v` and `index`.
//#if USES_F16
enable f16;
//#endif

struct Params {
  count : u32,
  chunks : u32,
  fold : u32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> parts : array<f32>;
@group(0) @binding(2) var<storage, read_write> result : array<{{Y}}>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let index = (workgroup.x + workgroup.y * p.fold) * 64u + thread;
  if (index >= p.count) {
    return;
  }
  var v = 0.0;
  //#if ACCUMULATE
  v = f32(result[index]);
  //#endif
  for (var c = 0u; c < p.chunks; c++) {
    v += parts[c * p.count + index];
  }
  {{EPILOGUE}}
  result[index] = {{Y}}(v);
}
