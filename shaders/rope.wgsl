// Rotary position embedding with interleaved pairs: (a, b) -> (a cos - b sin, a sin + b cos) for the pair (2i, 2i+1) of
// every head; p.sign = -1 rotates back, which is also the gradient. Source: RoFormer (Su et al. 2021); FLUX pairs neighbours.
// x [batch, tokens, heads, 2 * half], cosine and sine [tokens, half]. One lane turns PER_LANE pairs, each a vector of two.
//#if ALIGNED
// This variant: neighbouring lanes of a workgroup belong to one token, and LANES and half divide one another.
//#endif
// Bindings: 1 x, 2 cosine, 3 sine, 4 out. Grid: ceil(pairs / (LANES * PER_LANE)) workgroups of LANES, folded into y with p.fold a row.

struct Params { pairs : u32, tokens : u32, heads : u32, half : u32, fold : u32, sign : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<vec2<{{T}}>>;
@group(0) @binding(2) var<storage, read_write> cosine : array<f32>;
@group(0) @binding(3) var<storage, read_write> sine : array<f32>;
@group(0) @binding(4) var<storage, read_write> out : array<vec2<{{T}}>>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let base = (group.x + group.y * p.fold) * ({{LANES}}u * {{PER_LANE}}u);
  for (var j = 0u; j < {{PER_LANE}}u; j++) {
    let first = base + j * {{LANES}}u;
    let i = first + lane;
    if (i < p.pairs) {
//#if ALIGNED
      // Divisions of what is the same for all lanes, or for all turns of the loop.
      let pair = first % p.half + lane % p.half;
      let token = (first / (p.half * p.heads)) % p.tokens;
//#else
      let pair = i % p.half;
      let token = (i / (p.half * p.heads)) % p.tokens;
//#endif
      let c = cosine[token * p.half + pair];
      let s = sine[token * p.half + pair] * p.sign;
      let v = vec2<f32>(x[i]);
      out[i] = vec2<{{T}}>(vec2<f32>(v.x * c - v.y * s, v.x * s + v.y * c));
    }
  }
}
