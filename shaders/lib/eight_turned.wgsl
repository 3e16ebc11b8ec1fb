// How the input gradient of a convolution on subgroup matrices reads the forward weights {{X}} [channels of dY, channels of
// dX, TAPS]: as the matrix whose rows are the channels of dX and whose columns are (channel of dY, kernel turned by 180°).
// Eight neighbouring columns as four words of halves; zeros beyond the edges.
//
// ROWS and COLUMNS are the sizes of that matrix.
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}} || column >= {{COLUMNS}}) {
    return vec4<u32>();
  }
  var channel = column / {{TAPS}}u;
  var tap = column % {{TAPS}}u;
  //#for j 8
  let inside{{j}} = column + {{j}}u < {{COLUMNS}};
  let at{{j}} = select(0u, base + (channel * {{ROWS}} + row) * {{TAPS}}u + {{TAPS}}u - 1u - tap, inside{{j}});
  let v{{j}} = select(0.0, f32({{X}}[at{{j}}]), inside{{j}});
  tap++;
  if (tap == {{TAPS}}u) {
    tap = 0u;
    channel++;
  }
  //#endfor
  return halves(vec4<f32>(v0, v1, v2, v3), vec4<f32>(v4, v5, v6, v7));
}
