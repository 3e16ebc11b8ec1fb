// The row of `table` (rows of ROW words) that work item `item` belongs to: word `column` of a row counts the items of all
// rows before it. Rows without items are passed over. Used by kernels that take tensor by tensor (src/optim/tensors.ts).
fn find_row(first : u32, rows : u32, column : u32, item : u32) -> u32 {
  var low = 0u;
  var high = rows;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (table[(first + middle) * ROW + column] <= item) { low = middle; } else { high = middle; }
  }
  return (first + low) * ROW;
}
