// A chain of pointwise steps: v = a[index]; v = step(v, ...); out[index] = v, index < p.count.
// The steps and their operands (any broadcast that src/tensor/shape.ts can collapse) are put in by src/tensor/epilogue.ts.
// Bindings: 1 a, 2 out, operands from 3. Grid: ceil(count / (64 * PER_LANE)) workgroups of 64, PER_LANE values a lane, folded into y with p.fold a row.
//#if ACCUMULATE
// This variant adds to what out holds.
//#endif

struct Params { count : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> a : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT}}>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * (64u * {{PER_LANE}}u);
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let first = base + j * 64u;
    let index = first + lane;
    if (index < p.count) {
      var v = f32(a[index]);
      {{EPILOGUE}}
//#if ACCUMULATE
      v += f32(out[index]);
//#endif
      out[index] = {{OUT}}(v);
    }
  }
}
