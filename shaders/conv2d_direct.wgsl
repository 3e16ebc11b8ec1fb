// Y[n, o, y, x] = Σ_{i, u, v} W[o, i, u, v] · X[n, i, y·STRIDE + u - padTop, x·STRIDE + v - padLeft], from registers
// only.
//
// Shapes: X [N, IC, H, W], weights OIHW, Y [N, OC, OH, OW]; f32 or f16 in memory, f32 in registers. Bottom and right
// padding follow from OH and OW. Bindings: 0 params, 1 X, 2 weights, 3 Y, epilogue operands from 4 on.
// FLIPPED: the weights are those of the forward convolution, [IC, OC, KH, KW] in this kernel's terms, and are read
// transposed and turned by 180°: with X = dY, stride 1 and pad K-1-pad this is the input gradient, without a repacking
// pass.
//
// Mapping: a lane owns PIXELS neighbours along x of one row of one picture, and CHANNELS output channels of them; a
// workgroup is LANES lanes. The row segment that a lane loads serves all KW taps: (PIXELS-1)·STRIDE + KW loads instead
// of PIXELS·KW. All taps of one input channel are unrolled, so that a sum is touched KH·KW times between loading and
// spilling.
// BROADCAST (subgroups of exactly LANES): a lane loads the weight of one of LANES output channels and the others
// get it by subgroupBroadcast; a gather costs the same at any stride, so packing weights by output channel buys
// nothing.
// Without BROADCAST weights are loads at uniform addresses, for any subgroup size.
// Measured on lavapipe (Mesa 26.1, 2 cores; GFLOP/s as if both cores worked on nothing else), 3x3, 64 -> 64, batch 4:
//   CHANNELS x PIXELS  8x4   16x4   32x4   16x8      16x4 without BROADCAST 61
//   8²                 70    83     89     92
//   32²                68    81     87     91        FLIPPED 81 · stride 2 from 64² 70 · 4 -> 64 channels 52
//   64²                67    83     84     88        64 -> 4 channels: 4x4 47, 4x8 62 · 1x1: 28 (use matmul)
// UNROLLED off: taps are a loop and stride and kernel size come as data, for kernels larger than 3x3.
// Limits: any size >= 1; edges are clamped while reading, masked, and skipped while storing. Offsets are u32.
//#if USES_SUBGROUPS
enable subgroups;
//#endif
//#if USES_F16
enable f16;
//#endif

struct Params {
  N : u32,
  IC : u32,
  H : u32,
  W : u32,
  OC : u32,
  OH : u32,
  OW : u32,
  KH : u32,
  KW : u32,
  stride : u32,
  padTop : i32,
  padLeft : i32,
  segments : u32,       // lanes' pieces of one output row, ceil(OW / PIXELS)
  pixelTiles : u32,
  channelTiles : u32,
  fold : u32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> X : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> weights : array<{{W}}>;
@group(0) @binding(3) var<storage, read_write> Y : array<{{Y}}>;
{{EPILOGUE_BINDINGS}}

fn finish(sum : f32, n : u32, oc : u32, oy : u32, ox : u32) {
  let index = ((n * p.OC + oc) * p.OH + oy) * p.OW + ox;
  var v = sum;
  //#if ACCUMULATE
  v += f32(Y[index]);
  //#endif
  {{EPILOGUE}}
  Y[index] = {{Y}}(v);
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let channelTile = tile / p.pixelTiles;
  if (channelTile >= p.channelTiles) {
    return;
  }
  // Pixel tiles run first: neighbours share their weights.
  let oc = channelTile * {{CHANNELS}}u;
  let segment = (tile % p.pixelTiles) * {{LANES}}u + lane;
  let isInside = segment < p.N * p.OH * p.segments;
  let safe = select(0u, segment, isInside);
  let ox = (safe % p.segments) * {{PIXELS}}u;
  let oy = (safe / p.segments) % p.OH;
  let n = safe / (p.segments * p.OH);
  let plane = p.H * p.W;
  let picture = n * p.IC * plane;
  //#if UNROLLED
  let taps = {{TAPS}}u;
  let stride = {{STRIDE}};
  //#else
  let taps = p.KH * p.KW;
  let stride = i32(p.stride);
  //#endif
  let top = i32(oy) * stride - p.padTop;
  let left = i32(ox) * stride - p.padLeft;

  // Weight of (output channel o, input channel i, tap t) lies at o · outStep + i · inStep + t (FLIPPED: taps - 1 - t).
  //#if FLIPPED
  let outStep = taps;
  let inStep = p.OC * taps;
  //#else
  let outStep = p.IC * taps;
  let inStep = taps;
  //#endif
  //#for g GROUPS
  //#if BROADCAST
  let channelOfLane{{g}} = min(oc + {{g}}u * {{SUB}}u + lane, p.OC - 1u) * outStep;
  //#else
  //#for s SUB
  let channel{{g}}_{{s}} = min(oc + {{g}}u * {{SUB}}u + {{s}}u, p.OC - 1u) * outStep;
  //#endfor
  //#endif
  //#for s SUB
  //#for i PIXELS
  var sum{{g}}_{{s}}_{{i}} = 0.0;
  //#endfor
  //#endfor
  //#endfor

  //#if UNROLLED
  //#for j SEGMENT
  let column{{j}} = u32(clamp(left + {{j}}, 0, i32(p.W) - 1));
  let columnInside{{j}} = left + {{j}} >= 0 && left + {{j}} < i32(p.W);
  //#endfor
  //#for u KH
  let line{{u}} = picture + u32(clamp(top + {{u}}, 0, i32(p.H) - 1)) * p.W;
  let lineInside{{u}} = top + {{u}} >= 0 && top + {{u}} < i32(p.H);
  //#for j SEGMENT
  let inside{{u}}_{{j}} = lineInside{{u}} && columnInside{{j}};
  let at{{u}}_{{j}} = line{{u}} + column{{j}};
  //#endfor
  //#endfor
  for (var ic = 0u; ic < p.IC; ic++) {
    let here = ic * plane;
    let tap0 = ic * inStep;
    var x : array<f32, {{KH}} * {{SEGMENT}}>;
    //#for u KH
    //#for j SEGMENT
    x[{{u}} * {{SEGMENT}} + {{j}}] = select(0.0, f32(X[here + at{{u}}_{{j}}]), inside{{u}}_{{j}});
    //#endfor
    //#endfor
    //#for g GROUPS
    {
      //#if BROADCAST
      //#for u KH
      //#for v KW
      //#if FLIPPED
      let w{{u}}_{{v}} = f32(weights[channelOfLane{{g}} + tap0 + (taps - 1u - {{u}}u * {{KW}}u - {{v}}u)]);
      //#else
      let w{{u}}_{{v}} = f32(weights[channelOfLane{{g}} + tap0 + {{u}}u * {{KW}}u + {{v}}u]);
      //#endif
      //#endfor
      //#endfor
      //#endif
      //#for s SUB
      //#for u KH
      //#for v KW
      {
        //#if BROADCAST
        let w = subgroupBroadcast(w{{u}}_{{v}}, {{s}}u);
        //#else
        //#if FLIPPED
        let w = f32(weights[channel{{g}}_{{s}} + tap0 + (taps - 1u - {{u}}u * {{KW}}u - {{v}}u)]);
        //#else
        let w = f32(weights[channel{{g}}_{{s}} + tap0 + {{u}}u * {{KW}}u + {{v}}u]);
        //#endif
        //#endif
        //#for i PIXELS
        sum{{g}}_{{s}}_{{i}} = fma(w, x[{{u}} * {{SEGMENT}} + {{i}} * {{STRIDE}} + {{v}}], sum{{g}}_{{s}}_{{i}});
        //#endfor
      }
      //#endfor
      //#endfor
      //#endfor
    }
    //#endfor
  }
  //#else
  for (var ic = 0u; ic < p.IC; ic++) {
    var tap = ic * inStep;
    //#if FLIPPED
    tap += taps - 1u;
    //#endif
    for (var u = 0u; u < p.KH; u++) {
      let iy = top + i32(u);
      let lineInside = iy >= 0 && iy < i32(p.H);
      let line = picture + ic * plane + u32(clamp(iy, 0, i32(p.H) - 1)) * p.W;
      for (var v = 0u; v < p.KW; v++) {
        //#for i PIXELS
        let ix{{i}} = left + {{i}} * stride + i32(v);
        let x{{i}} = select(0.0, f32(X[line + u32(clamp(ix{{i}}, 0, i32(p.W) - 1))]),
                            lineInside && ix{{i}} >= 0 && ix{{i}} < i32(p.W));
        //#endfor
        //#for g GROUPS
        {
          //#if BROADCAST
          let wLanes = f32(weights[channelOfLane{{g}} + tap]);
          //#endif
          //#for s SUB
          {
            //#if BROADCAST
            let w = subgroupBroadcast(wLanes, {{s}}u);
            //#else
            let w = f32(weights[channel{{g}}_{{s}} + tap]);
            //#endif
            //#for i PIXELS
            sum{{g}}_{{s}}_{{i}} = fma(w, x{{i}}, sum{{g}}_{{s}}_{{i}});
            //#endfor
          }
          //#endfor
        }
        //#endfor
        //#if FLIPPED
        tap--;
        //#else
        tap++;
        //#endif
      }
    }
  }
  //#endif

  if (isInside) {
    //#for g GROUPS
    //#for s SUB
    if (oc + {{g}}u * {{SUB}}u + {{s}}u < p.OC) {
      //#for i PIXELS
      if (ox + {{i}}u < p.OW) {
        finish(sum{{g}}_{{s}}_{{i}}, n, oc + {{g}}u * {{SUB}}u + {{s}}u, oy, ox + {{i}}u);
      }
      //#endfor
    }
    //#endfor
    //#endfor
  }
}
