// How a convolution on subgroup matrices reads its picture {{X}}: as the matrix whose rows are (channel, kernel row, kernel
// column) and whose columns are the pixels of the output (im2col; Chellapilla et al. 2006), which exists nowhere but in the
// tiles that are staged. Eight neighbouring columns are four words of halves; padding and what lies outside are zeros.
//
// ROWS and COLUMNS are the sizes of that matrix; TAPS, KW and STRIDE the kernel's. FLAT: columns run through all pictures of
// the batch, p.picture values apart; otherwise `base` is where the one picture starts. ALIGNED: pictures of halves whose rows
// are whole groups of eight, under a kernel of three columns and stride 1 that keeps the width. A group is then one load
// and for the outer columns of the kernel one neighbour's.
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}} || column >= {{COLUMNS}}) {
    return vec4<u32>();
  }
  let tap = row % {{TAPS}}u;
  let shiftY = i32(tap / {{KW}}u) - p.padTop;
  let shiftX = i32(tap % {{KW}}u) - p.padLeft;
  var plane = base + row / {{TAPS}}u * p.H * p.W;
  //#if FLAT
  plane += column / p.pixels * p.picture;
  var y = column % p.pixels / p.OW;
  //#else
  var y = column / p.OW;
  //#endif
  var x = column % p.OW;
  //#if ALIGNED
  let line = u32(i32(y) + shiftY);
  if (line >= p.H) {
    return vec4<u32>();
  }
  let at = (plane + line * p.W + x) >> 3u;
  let own = {{X}}[at];
  if (shiftX < 0) {
    let before = select(0u, {{X}}[max(at, 1u) - 1u].w, x > 0u);
    return (own << vec4<u32>(16u)) | (vec4<u32>(before, own.xyz) >> vec4<u32>(16u));
  }
  if (shiftX > 0) {
    let behind = select(0u, {{X}}[select(at, at + 1u, x + 8u < p.W)].x, x + 8u < p.W);
    return (own >> vec4<u32>(16u)) | (vec4<u32>(own.yzw, behind) << vec4<u32>(16u));
  }
  return own;
  //#else
  //#for j 8
  let row{{j}} = i32(y * {{STRIDE}}u) + shiftY;
  let column{{j}} = i32(x * {{STRIDE}}u) + shiftX;
  // What lies above or left of the picture is a huge number without sign.
  let inside{{j}} = column + {{j}}u < {{COLUMNS}} && u32(row{{j}}) < p.H && u32(column{{j}}) < p.W;
  let at{{j}} = select(0u, plane + u32(row{{j}}) * p.W + u32(column{{j}}), inside{{j}});
  let v{{j}} = select(0.0, f32({{X}}[at{{j}}]), inside{{j}});
  x++;
  if (x == p.OW) {
    x = 0u;
    y++;
    //#if FLAT
    if (y * p.OW == p.pixels) {
      y = 0u;
      plane += p.picture;
    }
    //#endif
  }
  //#endfor
  return halves(vec4<f32>(v0, v1, v2, v3), vec4<f32>(v4, v5, v6, v7));
  //#endif
}
