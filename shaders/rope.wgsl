// Rotary position embedding with interleaved pairs: (a, b) -> (a cos - b sin, a sin + b cos) for the pair (2i, 2i+1) of
// every head; p.sign = -1 rotates back, which is also the gradient. Source: RoFormer (Su et al. 2021); FLUX pairs neighbours.
// x [batch, tokens, heads, 2 * half], cosine and sine [tokens, half]. One lane turns PER_LANE pairs.
// Bindings: 1 x, 2 cosine, 3 sine, 4 out. Grid: ceil(pairs / (64 * PER_LANE)) workgroups of 64, folded into y with p.fold a row.

struct Params { pairs : u32, tokens : u32, heads : u32, half : u32, fold : u32, sign : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{T}}>;
@group(0) @binding(2) var<storage, read_write> cosine : array<f32>;
@group(0) @binding(3) var<storage, read_write> sine : array<f32>;
@group(0) @binding(4) var<storage, read_write> out : array<{{T}}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * (64u * {{PER_LANE}}u) + lane;
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let i = base + j * 64u;
    if (i < p.pairs) {
      let pair = i % p.half;
      let token = (i / (p.half * p.heads)) % p.tokens;
      let c = cosine[token * p.half + pair];
      let s = sine[token * p.half + pair] * p.sign;
      let a = f32(x[2u * i]);
      let b = f32(x[2u * i + 1u]);
      out[2u * i] = {{T}}(a * c - b * s);
      out[2u * i + 1u] = {{T}}(a * s + b * c);
    }
  }
}
