// How a kernel on subgroup matrices reads operand {{X}}: eight neighbours in memory as four words of halves, from whatever
// the operand is stored as; zeros beyond its edges. Values wider than f16 are rounded to it once, to nearest.
//
// ROWS and COLUMNS are the operand's sizes in memory (columns lie beside each other). WHOLE: columns and the stride
// between batches are multiples of 8 (f32: of 4), so that a group is one or two vector loads. AT is then the place of
// `row` and `column` in memory.

//#if F16
//#if WHOLE
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}} || column >= {{COLUMNS}}) {
    return vec4<u32>();
  }
  return {{X}}[({{AT}}) >> 3u];
}
//#else
fn one{{X}}(at : u32) -> f32 {
  return f32({{X}}[at]);
}
//#endif
//#endif

//#if F32
//#if WHOLE
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}} || column >= {{COLUMNS}}) {
    return vec4<u32>();
  }
  let at = ({{AT}}) >> 2u;
  var second = vec4<f32>();
  if (column + 4u < {{COLUMNS}}) {
    second = {{X}}[at + 1u];
  }
  return halves({{X}}[at], second);
}
//#else
fn one{{X}}(at : u32) -> f32 {
  return {{X}}[at];
}
//#endif
//#endif

//#if CODES
//#if WHOLE
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}} || column >= {{COLUMNS}}) {
    return vec4<u32>();
  }
  let at = {{AT}};
  let words = {{X}}[at >> 3u];
  //#if BF16
  let low = bitcast<vec4<f32>>(words << vec4<u32>(16u));
  let high = bitcast<vec4<f32>>(words & vec4<u32>(0xffff0000u));
  return halves(vec4<f32>(low.x, high.x, low.y, high.y), vec4<f32>(low.z, high.z, low.w, high.w));
  //#endif
  //#if INT8
  let scale = scales[at >> 6u];
  return halves(vec4<f32>(unpack4xI8(words.x)) * scale, vec4<f32>(unpack4xI8(words.y)) * scale);
  //#endif
  //#if NF4
  let scale = scales[at >> 6u];
  return halves(
    vec4<f32>(pairs[words & 255u], pairs[(words >> 8u) & 255u]) * scale,
    vec4<f32>(pairs[(words >> 16u) & 255u], pairs[words >> 24u]) * scale);
  //#endif
}
//#else
fn one{{X}}(at : u32) -> f32 {
  //#if SCALED
  return value({{X}}[at >> {{SHIFT}}u], scales[at >> 6u], at);
  //#else
  return value({{X}}[at >> {{SHIFT}}u], 1.0, at);
  //#endif
}
//#endif
//#endif

//#if !WHOLE
fn eight{{X}}(base : u32, row : u32, column : u32) -> vec4<u32> {
  if (row >= {{ROWS}}) {
    return vec4<u32>();
  }
  let at = base + row * {{COLUMNS}} + column;
  let there = min(max({{COLUMNS}}, column) - column, 8u);
  var v : array<f32, 8>;
  for (var j = 0u; j < there; j++) {
    v[j] = one{{X}}(at + j);
  }
  return halves(vec4<f32>(v[0], v[1], v[2], v[3]), vec4<f32>(v[4], v[5], v[6], v[7]));
}
//#endif
