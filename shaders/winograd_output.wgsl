// 4x4 outputs of a 3x3 convolution from the products U V of each tile: Y = Aᵀ M A. Points of interpolation and sources:
// winograd_weights.wgsl.
//
// Shapes: M [36, OC, tiles] f32 of the tiles first … first + tiles - 1 -> Y [N, OC, OH, OW] f32 or f16. Bindings: 0 params, 1 M,
// 2 Y, epilogue operands from 3 on; the epilogue sees `v`, `n`, `oc`, `oy`, `ox` and `index`. Mapping: a lane makes the 16 values
// of one tile of one channel, with WIDE each row of them as a vector (OH and OW divide by 4, and the epilogue takes four
// neighbours). Limits: any sizes >= 1; what lies outside of the picture is not stored. Offsets are u32;
// fewer than 2^22 items and tiles.
//#if USES_F16
enable f16;
//#endif

struct Params {
  OC : u32,
  OH : u32,
  OW : u32,
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
@group(0) @binding(1) var<storage, read_write> M : array<f32>;
@group(0) @binding(2) var<storage, read_write> Y : array<{{ITEM}}>;
{{EPILOGUE_BINDINGS}}

const P = 0.75;
const Q = 1.5;
const P2 = 0.5625;
const Q2 = 2.25;
const P3 = 0.421875;
const Q3 = 3.375;

//#if WIDE
fn finish(sums : vec4<f32>, n : u32, oc : u32, oy : u32, ox : u32) {
  let index = ((n * p.OC + oc) * p.OH + oy) * p.OW + ox;
  var v = sums;
  {{EPILOGUE}}
  Y[index / 4u] = {{ITEM}}(v);
}
//#else
fn finish(sum : f32, n : u32, oc : u32, oy : u32, ox : u32) {
  if (oy >= p.OH || ox >= p.OW) {
    return;
  }
  let index = ((n * p.OC + oc) * p.OH + oy) * p.OW + ox;
  var v = sum;
  {{EPILOGUE}}
  Y[index] = {{ITEM}}(v);
}
//#endif

// n / d; as in lib/division.wgsl, which an epilogue may bring along.
fn over(n : u32, inverse : f32) -> u32 { return u32(i32((f32(i32(n)) + 0.5) * inverse)); }

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let item = (workgroup.x + workgroup.y * p.fold) * {{LANES}}u + lane;
  let step = p.OC * p.tiles;
  if (item >= step) {
    return;
  }
  let oc = over(item, p.inverseTiles);
  let tile = p.first + item - oc * p.tiles;
  let row = over(tile, p.inverseX);
  let ox = (tile - row * p.tilesX) * 4u;
  let n = over(row, p.inverseY);
  let oy = (row - n * p.tilesY) * 4u;
  //#for v 6
  //#for u 6
  let m{{u}}_{{v}} = M[{{u}}u * 6u * step + {{v}}u * step + item];
  //#endfor
  let sumP{{v}} = m1_{{v}} + m2_{{v}};
  let differenceP{{v}} = m1_{{v}} - m2_{{v}};
  let sumQ{{v}} = m3_{{v}} + m4_{{v}};
  let differenceQ{{v}} = m3_{{v}} - m4_{{v}};
  let h0_{{v}} = m0_{{v}} + sumP{{v}} + sumQ{{v}};
  let h1_{{v}} = fma(P, differenceP{{v}}, Q * differenceQ{{v}});
  let h2_{{v}} = fma(P2, sumP{{v}}, Q2 * sumQ{{v}});
  let h3_{{v}} = fma(P3, differenceP{{v}}, fma(Q3, differenceQ{{v}}, m5_{{v}}));
  //#endfor
  //#for u 4
  {
    let sumP = h{{u}}_1 + h{{u}}_2;
    let differenceP = h{{u}}_1 - h{{u}}_2;
    let sumQ = h{{u}}_3 + h{{u}}_4;
    let differenceQ = h{{u}}_3 - h{{u}}_4;
    let y0 = h{{u}}_0 + sumP + sumQ;
    let y1 = fma(P, differenceP, Q * differenceQ);
    let y2 = fma(P2, sumP, Q2 * sumQ);
    let y3 = fma(P3, differenceP, fma(Q3, differenceQ, h{{u}}_5));
    //#if WIDE
    finish(vec4<f32>(y0, y1, y2, y3), n, oc, oy + {{u}}u, ox);
    //#else
    finish(y0, n, oc, oy + {{u}}u, ox);
    finish(y1, n, oc, oy + {{u}}u, ox + 1u);
    finish(y2, n, oc, oy + {{u}}u, ox + 2u);
    finish(y3, n, oc, oy + {{u}}u, ox + 3u);
    //#endif
  }
  //#endfor
}
