// Nearest upsampling of pictures [planes, h, w] by two, and its gradient.
//#if BACKWARD
// out[n, y, x] = a[n, 2y, 2x] + a[n, 2y, 2x+1] + a[n, 2y+1, 2x] + a[n, 2y+1, 2x+1]; p.width is the width of out.
//#else
// out[n, y, x] = a[n, y / 2, x / 2]; p.width is the width of out, heights are even so that planes need no count.
//#endif
//#if WIDE
// This variant makes four neighbours at a time, and p.width is a multiple of four; upwards it makes those of two rows at once, out of
// one pair. p.size counts these items, p.inverse is 4 / p.width.
//#else
// p.size counts values, p.inverse is 1 / p.width.
//#endif
// Bindings: 1 a, 2 out; operands of the epilogue from 3. A lane makes PER_LANE items; grid: ceil(size / (LANES * PER_LANE)) workgroups of
// LANES, folded into y with p.fold a row. Limits: fewer than 2^32 values; SMALL, quotients by one multiplication, for fewer than
// 2^22 items.

struct Params { size : u32, width : u32, fold : u32, inverse : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> a : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT}}>;
{{EPILOGUE_BINDINGS}}

fn rowOf(i : u32, width : u32) -> u32 {
//#if SMALL
  // As in lib/division.wgsl, which an epilogue may bring along.
  return u32(i32((f32(i32(i)) + 0.5) * p.inverse));
//#else
  return i / width;
//#endif
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i >= p.size) { return; }
//#if WIDE
    let vectors = p.width / 4u;
    let row = rowOf(i, vectors);
    let x = i - row * vectors;
//#if BACKWARD
    // Two vectors of each of the rows 2 row and 2 row + 1.
    let at = row * 4u * vectors + 2u * x;
    let below = at + 2u * vectors;
    let top = vec4<f32>(a[at]);
    let topNext = vec4<f32>(a[at + 1u]);
    let low = vec4<f32>(a[below]);
    let lowNext = vec4<f32>(a[below + 1u]);
    var v = (vec4<f32>(top.xz, topNext.xz) + vec4<f32>(top.yw, topNext.yw))
      + (vec4<f32>(low.xz, lowNext.xz) + vec4<f32>(low.yw, lowNext.yw));
    let index = 4u * i;
    {{EPILOGUE}}
    out[i] = {{OUT}}(v);
//#else
    let pair = a[i];
    let both = vec4<f32>(vec2<f32>(pair).xxyy);
    //#for r 2
    {
      let item = (2u * row + {{r}}u) * vectors + x;
      let index = 4u * item;
      var v = both;
      {{EPILOGUE}}
      out[item] = {{OUT}}(v);
    }
    //#endfor
//#endif
//#else
    let index = i;
    let row = rowOf(index, p.width);
    let x = index - row * p.width;
//#if BACKWARD
    let at = row * 4u * p.width + 2u * x;
    let below = at + 2u * p.width;
    var v = (f32(a[at]) + f32(a[at + 1u])) + (f32(a[below]) + f32(a[below + 1u]));
//#else
    var v = f32(a[(row / 2u) * (p.width / 2u) + x / 2u]);
//#endif
    {{EPILOGUE}}
    out[index] = {{OUT}}(v);
//#endif
  }
}
