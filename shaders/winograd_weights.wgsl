// Weights of a 3x3 convolution for tiles of 4x4 outputs: U[k] = (G g Gᵀ)[k] for each pair of channels (Winograd 1980; Lavin
// & Gray 2015). Points of interpolation: 0, ±3/4, ±3/2 and infinity, after Barabasz et al. 2018: the error of a sum of 64
// channels is 2.0 times that of a direct sum (tests/ops/conv2d.test.ts with LONGTAIL_PARITY=print).
//
// Shapes: weights OIHW f32 or f16 -> U [36, OC, IC] f32. FLIPPED: the weights are those of the forward convolution,
// [IC, OC, 3, 3] in this kernel's terms, and are read transposed and turned by 180°, for the input gradient.
// Bindings: 0 params, 1 weights, 2 U. Mapping: a lane makes the 36 values of one pair of channels.
// Limits: any OC, IC >= 1; offsets are u32; fewer than 2^22 pairs.
//#if USES_F16
enable f16;
//#endif

struct Params { OC : u32, IC : u32, fold : u32, inverse : f32 }

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> weights : array<{{W}}>;
@group(0) @binding(2) var<storage, read_write> U : array<f32>;

// G has the rows (1/R, 0, 0), (1, ±a, a²) / N(a) for a = P and Q, and (0, 0, 1).
const P = 0.75;
const Q = 1.5;
const P2 = 0.5625;
const Q2 = 2.25;
const inverseR = 1.0 / (P2 * Q2);
const inverseP = 1.0 / (2.0 * P2 * (P2 - Q2));
const inverseQ = 1.0 / (2.0 * Q2 * (Q2 - P2));

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let pair = (workgroup.x + workgroup.y * p.fold) * {{LANES}}u + lane;
  let pairs = p.OC * p.IC;
  if (pair >= pairs) {
    return;
  }
  //#if FLIPPED
  // pair / p.IC; see lib/division.wgsl.
  let oc = u32(i32((f32(i32(pair)) + 0.5) * p.inverse));
  let base = ((pair - oc * p.IC) * p.OC + oc) * 9u;
  //#else
  let base = pair * 9u;
  //#endif
  //#for v 3
  //#for u 3
  //#if FLIPPED
  let g{{u}}_{{v}} = f32(weights[base + 8u - ({{u}}u * 3u + {{v}}u)]);
  //#else
  let g{{u}}_{{v}} = f32(weights[base + {{u}}u * 3u + {{v}}u]);
  //#endif
  //#endfor
  let h0_{{v}} = g0_{{v}} * inverseR;
  let evenP{{v}} = fma(P2, g2_{{v}}, g0_{{v}}) * inverseP;
  let oddP{{v}} = g1_{{v}} * (P * inverseP);
  let h1_{{v}} = evenP{{v}} + oddP{{v}};
  let h2_{{v}} = evenP{{v}} - oddP{{v}};
  let evenQ{{v}} = fma(Q2, g2_{{v}}, g0_{{v}}) * inverseQ;
  let oddQ{{v}} = g1_{{v}} * (Q * inverseQ);
  let h3_{{v}} = evenQ{{v}} + oddQ{{v}};
  let h4_{{v}} = evenQ{{v}} - oddQ{{v}};
  let h5_{{v}} = g2_{{v}};
  //#endfor
  //#for u 6
  {
    let evenP = fma(P2, h{{u}}_2, h{{u}}_0) * inverseP;
    let oddP = h{{u}}_1 * (P * inverseP);
    let evenQ = fma(Q2, h{{u}}_2, h{{u}}_0) * inverseQ;
    let oddQ = h{{u}}_1 * (Q * inverseQ);
    let at = {{u}}u * 6u * pairs + pair;
    U[at] = h{{u}}_0 * inverseR;
    U[at + pairs] = evenP + oddP;
    U[at + 2u * pairs] = evenP - oddP;
    U[at + 3u * pairs] = evenQ + oddQ;
    U[at + 4u * pairs] = evenQ - oddQ;
    U[at + 5u * pairs] = h{{u}}_2;
  }
  //#endfor
}
