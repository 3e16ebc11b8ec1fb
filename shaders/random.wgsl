// Counter-based random numbers, Philox4x32-10 (Salmon et al. 2011), with the mapping that src/base/random.ts documents:
// one block of four words serves elements 4b ... 4b + 3; key and counter come from the buffer `key` = (seed mod 2^32,
// stream, step, seed >> 32). WORDS gives the 32-bit words themselves, NORMAL standard normal numbers, else uniform in
// [0, 1). Sine and cosine are polynomials on [-pi/4, pi/4] and the logarithm is Cephes' polynomial: WGSL promises less
// for its own.
// Bindings: 1 key, 2 out; operands of the epilogue from 3. A thread makes one block; grid: ceil(size / 256) workgroups
// of 64, folded into y with p.fold a row. p.first_block shifts the elements. Limit: fewer than 2^32 values.

struct Params { size : u32, first_block : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> key : array<u32>;
@group(0) @binding(2) var<storage, read_write> out : array<{{OUT}}>;
{{EPILOGUE_BINDINGS}}

fn multiply_high(a : u32, b : u32) -> u32 {
  let a_low = a & 0xffffu;
  let a_high = a >> 16u;
  let b_low = b & 0xffffu;
  let b_high = b >> 16u;
  let middle = a_high * b_low + ((a_low * b_low) >> 16u);
  let cross = a_low * b_high + (middle & 0xffffu);
  return a_high * b_high + (middle >> 16u) + (cross >> 16u);
}

fn philox(block : vec4<u32>, start : vec2<u32>) -> vec4<u32> {
  var c = block;
  var k = start;
  for (var round = 0; round < 10; round++) {
    let high0 = multiply_high(0xd2511f53u, c.x);
    let high1 = multiply_high(0xcd9e8d57u, c.z);
    c = vec4<u32>(high1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, high0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

//#if NORMAL
/** Natural logarithm of x in (0, 1]. */
fn natural_log(value : f32) -> f32 {
  let bits = bitcast<u32>(value);
  var exponent = f32(i32(bits >> 23u) - 126);
  var x = bitcast<f32>((bits & 0x7fffffu) | 0x3f000000u);
  if (x < 0.70710678) {
    exponent -= 1.0;
    x = (x + x) - 1.0;
  } else {
    x = x - 1.0;
  }
  let square = x * x;
  var y = 7.0376836292e-2;
  y = y * x - 1.151461031e-1;
  y = y * x + 1.167699874e-1;
  y = y * x - 1.2420140846e-1;
  y = y * x + 1.4249322787e-1;
  y = y * x - 1.6668057665e-1;
  y = y * x + 2.0000714765e-1;
  y = y * x - 2.4999993993e-1;
  y = y * x + 3.3333331174e-1;
  y = y * x * square;
  // ln 2 in two parts, the first short enough for an exact product.
  y += exponent * -2.12194440e-4;
  y -= 0.5 * square;
  return (x + y) + exponent * 0.693359375;
}

fn normal_pair(a : u32, b : u32) -> vec2<f32> {
  let s = -2.0 * natural_log(f32((a >> 8u) + 1u) * 0x1p-24);
  var radius = sqrt(s);
  // One Newton step: a square root of the hardware may be wrong in its last bits, and the radius magnifies them.
  if (radius > 0.0) { radius += 0.5 * (s - radius * radius) / radius; }
  let angle = 1.57079632679 * (f32((b >> 8u) & 0x3fffffu) * 0x1p-22 - 0.5);
  let q = angle * angle;
  let sine = angle + (angle * q) * (((q * (1.0 / 362880.0) - 1.0 / 5040.0) * q + 1.0 / 120.0) * q - 1.0 / 6.0);
  let cosine = 1.0 + q * (((q * (1.0 / 40320.0) - 1.0 / 720.0) * q + 1.0 / 24.0) * q - 0.5);
  switch (b >> 30u) {
    case 0u: { return radius * vec2<f32>(cosine, sine); }
    case 1u: { return radius * vec2<f32>(-sine, cosine); }
    case 2u: { return radius * vec2<f32>(-cosine, -sine); }
    default: { return radius * vec2<f32>(sine, -cosine); }
  }
}
//#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let block = (group.x + group.y * p.fold) * 64u + lane;
  if (block >= p.size / 4u + min(p.size % 4u, 1u)) { return; }
  let words = philox(vec4<u32>(p.first_block + block, key[2], key[3], 0u), vec2<u32>(key[0], key[1]));
//#if WORDS
  var values = words;
//#else
//#if NORMAL
  var values = vec4<f32>(normal_pair(words.x, words.y), normal_pair(words.z, words.w));
//#else
  var values = vec4<f32>(words >> vec4<u32>(8u)) * 0x1p-24;
//#endif
//#endif
  for (var j = 0u; j < 4u; j++) {
    let index = block * 4u + j;
    if (index < p.size) {
      var v = values[j];
      {{EPILOGUE}}
      out[index] = v;
    }
  }
}
