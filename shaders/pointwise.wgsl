// A chain of pointwise steps: v = a[index]; v = step(v, ...); out[index] = v, index < p.count.
//#if WIDE
// This variant makes four neighbours at a time; p.count and index are multiples of four.
//#endif
// The steps and their operands (any broadcast that src/tensor/shape.ts can collapse) are put in by src/tensor/epilogue.ts.
// Bindings: 1 a, 2 out, operands from 3. Grid: ceil(count / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold a row.
//#if ACCUMULATE
// This variant adds to what out holds.
//#endif

struct Params { count : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> a : array<{{A_ITEM}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT_ITEM}}>;
{{EPILOGUE_BINDINGS}}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u);
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
//#if WIDE
    let first = 4u * (base + j * {{LANES}}u);
    let index = first + 4u * lane;
    if (index < p.count) {
      let item = index / 4u;
      var v = vec4<f32>(a[item]);
      {{EPILOGUE}}
//#if ACCUMULATE
      v += vec4<f32>(out[item]);
//#endif
      out[item] = {{OUT_ITEM}}(v);
    }
//#else
    let first = base + j * {{LANES}}u;
    let index = first + lane;
    if (index < p.count) {
      var v = f32(a[index]);
      {{EPILOGUE}}
//#if ACCUMULATE
      v += f32(out[index]);
//#endif
      out[index] = {{OUT_ITEM}}(v);
    }
//#endif
  }
}
