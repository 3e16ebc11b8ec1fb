// Tiles of 6x6 inputs, 4 apart, for a 3x3 convolution of stride 1: V[k] = (Bᵀ d B)[k] for each channel and tile. Points of
// interpolation and sources: winograd_weights.wgsl.
//
// Shapes: X [N, IC, H, W] f32 or f16 -> V [36, IC, tiles] f32 of the tiles first … first + tiles - 1, which run along x, then y,
// then over pictures. Bindings: 0 params, 1 X, 2 V. Mapping: a lane makes the 36 values of one tile of one channel, so that
// neighbours store beside each other. Outside of the picture inputs are zero.
// Limits: any sizes >= 1; offsets are u32; fewer than 2^22 items and tiles.
//#if USES_F16
enable f16;
//#endif

struct Params {
  IC : u32,
  H : u32,
  W : u32,
  padTop : i32,
  padLeft : i32,
  tilesY : u32,
  tilesX : u32,
  first : u32,
  tiles : u32,
  fold : u32,
  inverseTiles : f32,
  inverseX : f32,
  inverseY : f32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> X : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> V : array<f32>;

// Bᵀ has the coefficients of (x² - P²)(x² - Q²), x (x ± a)(x² - b²) for a, b = P, Q and Q, P, and x (x² - P²)(x² - Q²).
const P = 0.75;
const Q = 1.5;
const P2 = 0.5625;
const Q2 = 2.25;
const R = P2 * Q2;
const S = P2 + Q2;

// n / d; as in lib/division.wgsl, which an epilogue may bring along.
fn over(n : u32, inverse : f32) -> u32 { return u32(i32((f32(i32(n)) + 0.5) * inverse)); }

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let item = (workgroup.x + workgroup.y * p.fold) * {{LANES}}u + lane;
  if (item >= p.IC * p.tiles) {
    return;
  }
  let channel = over(item, p.inverseTiles);
  let tile = p.first + item - channel * p.tiles;
  let row = over(tile, p.inverseX);
  let left = i32(tile - row * p.tilesX) * 4 - p.padLeft;
  let n = over(row, p.inverseY);
  let top = i32(row - n * p.tilesY) * 4 - p.padTop;
  let plane = (n * p.IC + channel) * p.H * p.W;
  //#for v 6
  let x{{v}} = u32(clamp(left + {{v}}, 0, i32(p.W) - 1));
  let inX{{v}} = u32(left + {{v}}) < p.W;
  //#endfor
  //#for u 6
  let line{{u}} = plane + u32(clamp(top + {{u}}, 0, i32(p.H) - 1)) * p.W;
  let inY{{u}} = u32(top + {{u}}) < p.H;
  //#endfor
  //#for v 6
  //#for u 6
  let d{{u}}_{{v}} = select(0.0, f32(X[line{{u}} + x{{v}}]), inX{{v}} && inY{{u}});
  //#endfor
  let evenP{{v}} = fma(-Q2, d2_{{v}}, d4_{{v}});
  let oddP{{v}} = P * fma(-Q2, d1_{{v}}, d3_{{v}});
  let evenQ{{v}} = fma(-P2, d2_{{v}}, d4_{{v}});
  let oddQ{{v}} = Q * fma(-P2, d1_{{v}}, d3_{{v}});
  let h0_{{v}} = fma(R, d0_{{v}}, fma(-S, d2_{{v}}, d4_{{v}}));
  let h1_{{v}} = evenP{{v}} + oddP{{v}};
  let h2_{{v}} = evenP{{v}} - oddP{{v}};
  let h3_{{v}} = evenQ{{v}} + oddQ{{v}};
  let h4_{{v}} = evenQ{{v}} - oddQ{{v}};
  let h5_{{v}} = fma(R, d1_{{v}}, fma(-S, d3_{{v}}, d5_{{v}}));
  //#endfor
  let step = p.IC * p.tiles;
  //#for u 6
  {
    let evenP = fma(-Q2, h{{u}}_2, h{{u}}_4);
    let oddP = P * fma(-Q2, h{{u}}_1, h{{u}}_3);
    let evenQ = fma(-P2, h{{u}}_2, h{{u}}_4);
    let oddQ = Q * fma(-P2, h{{u}}_1, h{{u}}_3);
    let at = {{u}}u * 6u * step + item;
    V[at] = fma(R, h{{u}}_0, fma(-S, h{{u}}_2, h{{u}}_4));
    V[at + step] = evenP + oddP;
    V[at + 2u * step] = evenP - oddP;
    V[at + 3u * step] = evenQ + oddQ;
    V[at + 4u * step] = evenQ - oddQ;
    V[at + 5u * step] = fma(R, h{{u}}_1, fma(-S, h{{u}}_3, h{{u}}_5));
  }
  //#endfor
}
