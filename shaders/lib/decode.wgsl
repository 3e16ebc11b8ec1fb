// One value of a stored weight from its word and the factor of its block (src/base/quantize.ts); included by the kernels
// that read such weights. Codes lie in u32 words, the first in the lowest bits; a block is 64 neighbours.
// The 16 entries of NormalFloat4 are found by four levels of select, which need neither memory nor a barrier.

//#if NF4
fn entry(code : u32) -> f32 {
  let a = (code & 1u) != 0u;
  let b = (code & 2u) != 0u;
  let low = select(
    select(select(-1.0, -0.6961928009986877, a), select(-0.5250730514526367, -0.39491748809814453, a), b),
    select(select(-0.28444138169288635, -0.18477343022823334, a), select(-0.09105003625154495, 0.0, a), b),
    (code & 4u) != 0u);
  let high = select(
    select(select(0.07958029955625534, 0.16093020141124725, a), select(0.24611230194568634, 0.33791524171829224, a), b),
    select(select(0.44070982933044434, 0.5626170039176941, a), select(0.7229568362236023, 1.0, a), b),
    (code & 4u) != 0u);
  return select(low, high, (code & 8u) != 0u);
}
//#endif

// Value i of the weight, from its word and the factor of its block.
fn value(word : u32, scale : f32, i : u32) -> f32 {
  //#if F16
  return unpack2x16float(word >> (16u * (i & 1u))).x;
  //#endif
  //#if BF16
  return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) != 0u));
  //#endif
  //#if INT8
  return f32(extractBits(bitcast<i32>(word), 8u * (i & 3u), 8u)) * scale;
  //#endif
  //#if NF4
  return entry(extractBits(word, 4u * (i & 7u), 4u)) * scale;
  //#endif
}
