// dW[o, i, u, v] = Σ_{n, y, x} dY[n, o, y, x] · X[n, i, y·s + u - padTop, x·s + v - padLeft]: a matrix product whose
// long side are the pixels. Sums run in a fixed order (n, y, x); the output rows (n, y) are cut into chunks where the
// weights alone give too few workgroups, each chunk writes its own partial result, and conv2d_sum_chunks adds them in
// order.
//
// Shapes: X [N, IC, H, W], dY [N, OC, OH, OW], result [chunks, OC, IC, KH, KW]. Bindings: 0 params, 1 X, 2 dY, 3
// result.
// Mapping, UNROLLED (up to 3x3): a lane owns one input channel (VECTORS of them, LANES apart) with all its taps, for
// CHANNELS output channels. Eight neighbouring pixels are taken at once: one row of X serves all KW taps, and because
// all lanes look at the same pixel, padding is the same for all of them. Otherwise a lane owns VECTORS weights of the
// flat index (i, u, v), LANES apart, and padding is masked lane by lane.
// BROADCAST (subgroups of exactly LANES): lanes load eight neighbouring pixels of dY and hand them around.
// Measured on lavapipe (as in conv2d_direct), 64 -> 64 channels, batch 4: 3x3 at 32² 61 GFLOP/s with 8 channels, 70
// with 16 (twice the compilation time), 48 with 4; at 8² 38, 45, 30; 1x1 at 32² 35, 47, 23; without BROADCAST 53 at
// 32².
// What lies inside is joined by `&`, not `&&`: sixty branches in the loops took SwiftShader minutes and gigabytes to compile.
// Limits: any size >= 1, equal strides along both axes; offsets are u32.
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
  columnTiles : u32,
  channelTiles : u32,
  chunks : u32,
  rowsInChunk : u32,
  fold : u32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> X : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> dY : array<{{Y}}>;
@group(0) @binding(3) var<storage, read_write> result : array<f32>;

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let chunk = tile / (p.columnTiles * p.channelTiles);
  if (chunk >= p.chunks) {
    return;
  }
  let oc = (tile / p.columnTiles) % p.channelTiles * {{CHANNELS}}u;
  let column = (tile % p.columnTiles) * {{COLUMNS}}u + lane;
  let firstRow = chunk * p.rowsInChunk;
  let endRow = min(firstRow + p.rowsInChunk, p.N * p.OH);
  let plane = p.H * p.W;
  let planeOut = p.OH * p.OW;
  //#if UNROLLED
  let stride = {{STRIDE}};
  let columns = p.IC;
  //#else
  let stride = i32(p.stride);
  let taps = p.KH * p.KW;
  let columns = p.IC * taps;
  //#endif
  //#for g GROUPS
  //#for s SUB
  let channel{{g}}_{{s}} = min(oc + {{g}}u * {{SUB}}u + {{s}}u, p.OC - 1u) * planeOut;
  //#endfor
  //#endfor
  //#for c VECTORS
  let column{{c}} = min(column + {{c}}u * {{LANES}}u, columns - 1u);
  //#if UNROLLED
  let base{{c}} = column{{c}} * plane;
  //#else
  let base{{c}} = column{{c}} / taps * plane;
  let shiftY{{c}} = i32(column{{c}} / p.KW % p.KH) - p.padTop;
  let shiftX{{c}} = i32(column{{c}} % p.KW) - p.padLeft;
  //#endif
  //#endfor
  //#for g GROUPS
  //#for s SUB
  //#for c VECTORS
  //#for t TAPS
  var sum{{g}}_{{s}}_{{c}}_{{t}} = 0.0;
  //#endfor
  //#endfor
  //#endfor
  //#endfor

  for (var row = firstRow; row < endRow; row++) {
    let n = row / p.OH;
    let oy = row % p.OH;
    let picture = n * p.IC * plane;
    let line = n * p.OC * planeOut + oy * p.OW;
    let top = i32(oy) * stride - p.padTop;
    for (var ox = 0u; ox < p.OW; ox += 8u) {
      var x : array<f32, {{VECTORS}} * {{KH}} * {{SEGMENT}}>;
      //#if UNROLLED
      let left = i32(ox) * stride - p.padLeft;
      //#for u KH
      {
        let lineInside = (top + {{u}} >= 0) & (top + {{u}} < i32(p.H));
        let lineOfX = picture + u32(clamp(top + {{u}}, 0, i32(p.H) - 1)) * p.W;
        //#for j SEGMENT
        {
          let isInside = lineInside & (left + {{j}} >= 0) & (left + {{j}} < i32(p.W));
          let at = lineOfX + u32(clamp(left + {{j}}, 0, i32(p.W) - 1));
          //#for c VECTORS
          x[({{c}} * {{KH}} + {{u}}) * {{SEGMENT}} + {{j}}] = select(0.0, f32(X[base{{c}} + at]), isInside);
          //#endfor
        }
        //#endfor
      }
      //#endfor
      //#else
      //#for c VECTORS
      {
        let iy = i32(oy) * stride + shiftY{{c}};
        let lineInside = (iy >= 0) & (iy < i32(p.H));
        let lineOfX = picture + base{{c}} + u32(clamp(iy, 0, i32(p.H) - 1)) * p.W;
        //#for q 8
        {
          let ix = i32(ox + {{q}}u) * stride + shiftX{{c}};
          let value = f32(X[lineOfX + u32(clamp(ix, 0, i32(p.W) - 1))]);
          x[{{c}} * {{SEGMENT}} + {{q}}] = select(0.0, value, lineInside & (ix >= 0) & (ix < i32(p.W)));
        }
        //#endfor
      }
      //#endfor
      //#endif
      //#if BROADCAST
      let pixel = line + min(ox + lane, p.OW - 1u);
      let pixelInside = ox + lane < p.OW;
      //#endif
      //#for g GROUPS
      //#for s SUB
      {
        //#if BROADCAST
        let gradients = select(0.0, f32(dY[channel{{g}}_{{s}} + pixel]), pixelInside);
        //#endif
        //#for q 8
        {
          //#if BROADCAST
          let gradient = subgroupBroadcast(gradients, {{q}}u);
          //#else
          let at = channel{{g}}_{{s}} + line + min(ox + {{q}}u, p.OW - 1u);
          let gradient = select(0.0, f32(dY[at]), ox + {{q}}u < p.OW);
          //#endif
          //#for c VECTORS
          //#for t TAPS
          sum{{g}}_{{s}}_{{c}}_{{t}} = fma(
            gradient,
            x[({{c}} * {{KH}} + {{t}} / {{KW}}) * {{SEGMENT}} + {{q}} * {{STRIDE}} + {{t}} % {{KW}}],
            sum{{g}}_{{s}}_{{c}}_{{t}},
          );
          //#endfor
          //#endfor
        }
        //#endfor
      }
      //#endfor
      //#endfor
    }
  }

  let weightsInChunk = p.OC * p.IC * p.KH * p.KW;
  //#for g GROUPS
  //#for s SUB
  if (oc + {{g}}u * {{SUB}}u + {{s}}u < p.OC) {
    //#for c VECTORS
    if (column + {{c}}u * {{LANES}}u < columns) {
      let at = chunk * weightsInChunk +
        ((oc + {{g}}u * {{SUB}}u + {{s}}u) * columns + column + {{c}}u * {{LANES}}u) * {{TAPS}}u;
      //#for t TAPS
      result[at + {{t}}u] = sum{{g}}_{{s}}_{{c}}_{{t}};
      //#endfor
    }
    //#endfor
  }
  //#endfor
  //#endfor
}
