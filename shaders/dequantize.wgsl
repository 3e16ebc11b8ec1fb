// Decodes a stored weight: out[i] = code(i) · scale[i / 64] (int8: a signed byte; nf4: an entry of NormalFloat4, QLoRA,
// appendix E), or out[i] = the f16 or bf16 pattern i as a number. Codes lie in u32 words, the first in the lowest bits.
//
// Shapes: count values in any matrix, flat. Bindings: 1 words [ceil(count · bits / 32)], then, with SCALED, 2 scales
// [ceil(count / 64)], then out [count] of type OUT.
// Grid: ceil(count / (LANES * PER_LANE)) workgroups of LANES, PER_LANE values a lane, folded into y with p.fold a row. Lanes
// beside each other write values beside each other, and read the same word or the next one.
// QUADS: out is a vector of four values a place, count a multiple of 4 and PER_LANE counts quads: a quarter of the store
// instructions, for adapters that are limited by those.
// DECODE: the text of lib/decode.wgsl for this storage.

struct Params { count : u32, fold : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> words : array<u32>;
//#if SCALED
@group(0) @binding(2) var<storage, read_write> scales : array<f32>;
@group(0) @binding(3) var<storage, read_write> out : array<{{PLACE}}>;
//#else
@group(0) @binding(2) var<storage, read_write> out : array<{{PLACE}}>;
//#endif

{{DECODE}}

fn scaleOf(i : u32) -> f32 {
  //#if SCALED
  return scales[i >> 6u];
  //#else
  return 1.0;
  //#endif
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    //#if QUADS
    let i = 4u * (base + j * {{LANES}}u);
    if (i < p.count) {
      let scale = scaleOf(i);
      let word = words[i >> {{SHIFT}}u];
      //#if PAIRS
      let other = words[(i >> {{SHIFT}}u) + 1u];
      //#else
      let other = word;
      //#endif
      out[i >> 2u] = {{PLACE}}(
        {{OUT}}(value(word, scale, i)), {{OUT}}(value(word, scale, i + 1u)),
        {{OUT}}(value(other, scale, i + 2u)), {{OUT}}(value(other, scale, i + 3u)));
    }
    //#else
    let i = base + j * {{LANES}}u;
    if (i < p.count) {
      out[i] = {{OUT}}(value(words[i >> {{SHIFT}}u], scaleOf(i), i));
    }
    //#endif
  }
}
