// Adafactor's update before its size is chosen, for value i of the tensor in table row `row`: g divided by the root of
// its second moment, which for a matrix is rows * columns / mean of rows.
fn direction(row : u32, i : u32, g : f32) -> f32 {
  let origin = table[row + 3u];
  let columns = table[row + 6u];
  if (columns == 0u) { return g * inverseSqrt(moments[origin + i]); }
  let rows = table[row + 5u];
  let r = i / columns;
  let matrix = r / rows;
  let column = table[row + 4u] * rows + matrix * columns + i % columns;
  return g * inverseSqrt(moments[origin + r] / results[table[row + 12u] + matrix]) * inverseSqrt(moments[origin + column]);
}
