// Reorders dimensions: out[i0, ...] = x[sum_k i_k * from_k], dimensions that stay neighbours merged into one, from the
// innermost (0) outwards. Packing of latents and NCHW <-> token layouts are calls of this kernel.
//#if BLOCK
// This variant moves blocks of 4x4 where the last dimension of x is not the last of the output: four vectors of x become four of
// the output. Strides count vectors, a block is one step along both dimensions; p.rows apart lie its vectors in x, p.columns
// apart in the output.
//#else
// This variant moves RUN neighbouring items at a time: values, or vectors of two or four where the last dimension stays the last.
// Strides count items.
//#endif
// Bindings: 1 x, 2 out. Grid: ceil(count / (LANES * PER_LANE)) workgroups of LANES, PER_LANE runs or blocks a lane, folded into y with p.fold a row.
// Limits: fewer than 2^32 values; SMALL, quotients by one multiplication, for fewer than 2^22 of them.

struct Params { count : u32, fold : u32, rows : u32, columns : u32, outer_from : u32, outer_to : u32,
//#for k INNER
  size{{k}} : u32, inverse{{k}} : f32, from{{k}} : u32, to{{k}} : u32,
//#endfor
}
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{ITEM}}>;
@group(0) @binding(2) var<storage, read_write> out : array<{{ITEM}}>;
{{DIVISION}}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * {{LANES}}u;
    if (i < p.count) {
      var rest = i;
      var start = 0u;
      var to = 0u;
//#for k INNER
      {
//#if SMALL
        let before = quotient(rest, p.inverse{{k}});
//#else
        let before = rest / p.size{{k}};
//#endif
        let place = rest - before * p.size{{k}};
        start += place * p.from{{k}};
        to += place * p.to{{k}};
        rest = before;
      }
//#endfor
      start += rest * p.outer_from;
      to += rest * p.outer_to;
//#if BLOCK
      let a = x[start];
      let b = x[start + p.rows];
      let c = x[start + 2u * p.rows];
      let d = x[start + 3u * p.rows];
      out[to] = {{ITEM}}(a.x, b.x, c.x, d.x);
      out[to + p.columns] = {{ITEM}}(a.y, b.y, c.y, d.y);
      out[to + 2u * p.columns] = {{ITEM}}(a.z, b.z, c.z, d.z);
      out[to + 3u * p.columns] = {{ITEM}}(a.w, b.w, c.w, d.w);
//#else
//#for r RUN
      out[to + {{r}}u] = x[start + {{r}}u];
//#endfor
//#endif
    }
  }
}
