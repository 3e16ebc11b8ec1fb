// dX[n, i, y, x] = Σ_{o, u, v} W[o, i, u, v] · dY[n, o, (y + padTop - u) / s, (x + padLeft - v) / s] over the taps
// where the divisions have no remainder and stay inside dY: the input gradient of a strided convolution in gather
// form, so that no two invocations write one value. With stride 1 conv2d_direct with FLIPPED weights is faster.
//
// Shapes: dY [N, OC, OH, OW], weights OIHW, dX [N, IC, H, W]. Bindings: 0 params, 1 dY, 2 weights, 3 dX, epilogue from
// 4 on.
// Mapping, UNROLLED (up to 3x3, stride 2 or 3): dX is cut into cells of STRIDE x STRIDE pixels. A lane owns PIXELS
// neighbouring cells along x and CHANNELS input channels; the few values of dY around a cell serve all its pixels, and
// which tap belongs to which pixel is known when the text is expanded (the paddings modulo the stride are constants).
// Otherwise: pixels of dX that agree modulo the stride (a residue class) meet the same taps, so a workgroup works on
// one class and no tap is tried in vain; a lane owns PIXELS neighbours of the class.
// Measured on lavapipe (as in conv2d_direct), 64 -> 64 channels, 3x3, stride 2, dX 64²: unrolled 49, by class 13
// GFLOP/s (a loop's turn costs some 25 cycles there, too much for one tap's work).
// BROADCAST as in conv2d_direct. Limits: any size >= 1, equal strides along both axes; offsets are u32.
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
  padTop : u32,
  padLeft : u32,
  segments : u32,
  pixelTiles : u32,
  channelTiles : u32,
  fold : u32,
  classHeight : u32,    // rows of a residue class, ceil(H / stride)
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> dY : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> weights : array<{{W}}>;
@group(0) @binding(3) var<storage, read_write> dX : array<{{Y}}>;
{{EPILOGUE_BINDINGS}}

fn finish(sum : f32, n : u32, oc : u32, oy : u32, ox : u32) {
  let index = ((n * p.IC + oc) * p.H + oy) * p.W + ox;
  var v = sum;
  //#if ACCUMULATE
  v += f32(dX[index]);
  //#endif
  {{EPILOGUE}}
  dX[index] = {{Y}}(v);
}

//#if UNROLLED
const S = {{STRIDE}};
const PIXELS = {{PIXELS}};

// A tap u reaches pixel (u - pad) mod S of a cell; the row of dY that it takes is known relative to the cell as well.
@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let channelTile = tile / p.pixelTiles;
  if (channelTile >= p.channelTiles) {
    return;
  }
  let channel = channelTile * {{CHANNELS}}u;
  let segment = (tile % p.pixelTiles) * {{LANES}}u + lane;
  let isInside = segment < p.N * p.classHeight * p.segments;
  let safe = select(0u, segment, isInside);
  let cellX = (safe % p.segments) * {{PIXELS}}u;
  let cellY = (safe / p.segments) % p.classHeight;
  let n = safe / (p.segments * p.classHeight);
  let planeOut = p.OH * p.OW;
  let picture = n * p.OC * planeOut;
  let taps = p.KH * p.KW;
  let top = i32(cellY) + {{FIRST_Y}};
  let left = i32(cellX) + {{FIRST_X}};

  //#for g GROUPS
  //#if BROADCAST
  let channelOfLane{{g}} = min(channel + {{g}}u * {{SUB}}u + lane, p.IC - 1u) * taps;
  //#else
  //#for s SUB
  let channel{{g}}_{{s}} = min(channel + {{g}}u * {{SUB}}u + {{s}}u, p.IC - 1u) * taps;
  //#endfor
  //#endif
  //#for s SUB
  // [pixel of the cell along y][along x][cell]
  var sum{{g}}_{{s}} : array<f32, S * S * PIXELS>;
  //#endfor
  //#endfor
  //#for j SEGMENT
  let column{{j}} = u32(clamp(left + {{j}}, 0, i32(p.OW) - 1));
  let columnInside{{j}} = left + {{j}} >= 0 && left + {{j}} < i32(p.OW);
  //#endfor
  //#for h LINES
  let line{{h}} = picture + u32(clamp(top + {{h}}, 0, i32(p.OH) - 1)) * p.OW;
  let lineInside{{h}} = top + {{h}} >= 0 && top + {{h}} < i32(p.OH);
  //#for j SEGMENT
  let inside{{h}}_{{j}} = lineInside{{h}} && columnInside{{j}};
  let at{{h}}_{{j}} = line{{h}} + column{{j}};
  //#endfor
  //#endfor

  for (var o = 0u; o < p.OC; o++) {
    let here = o * planeOut;
    let tap0 = o * p.IC * taps;
    var gradient : array<f32, {{LINES}} * {{SEGMENT}}>;
    //#for h LINES
    //#for j SEGMENT
    gradient[{{h}} * {{SEGMENT}} + {{j}}] = select(0.0, f32(dY[here + at{{h}}_{{j}}]), inside{{h}}_{{j}});
    //#endfor
    //#endfor
    //#for g GROUPS
    {
      //#if BROADCAST
      //#for u KH
      //#for v KW
      let w{{u}}_{{v}} = f32(weights[channelOfLane{{g}} + tap0 + {{u}}u * {{KW}}u + {{v}}u]);
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
        let w = f32(weights[channel{{g}}_{{s}} + tap0 + {{u}}u * {{KW}}u + {{v}}u]);
        //#endif
        const inCellY = ({{u}} + {{KH}} * S * {{PAD_TOP}} - {{PAD_TOP}}) % S;
        const inCellX = ({{v}} + {{KW}} * S * {{PAD_LEFT}} - {{PAD_LEFT}}) % S;
        const h = (inCellY + {{PAD_TOP}} - {{u}}) / S - {{FIRST_Y}};
        const j = (inCellX + {{PAD_LEFT}} - {{v}}) / S - {{FIRST_X}};
        //#for i PIXELS
        sum{{g}}_{{s}}[(inCellY * S + inCellX) * PIXELS + {{i}}] = fma(
          w,
          gradient[h * {{SEGMENT}} + j + {{i}}],
          sum{{g}}_{{s}}[(inCellY * S + inCellX) * PIXELS + {{i}}],
        );
        //#endfor
      }
      //#endfor
      //#endfor
      //#endfor
    }
    //#endfor
  }

  if (isInside) {
    //#for g GROUPS
    //#for s SUB
    if (channel + {{g}}u * {{SUB}}u + {{s}}u < p.IC) {
      //#for y STRIDE
      //#for x STRIDE
      //#for i PIXELS
      {
        let oy = cellY * u32(S) + {{y}}u;
        let ox = (cellX + {{i}}u) * u32(S) + {{x}}u;
        if (oy < p.H && ox < p.W) {
          finish(sum{{g}}_{{s}}[({{y}} * S + {{x}}) * PIXELS + {{i}}], n, channel + {{g}}u * {{SUB}}u + {{s}}u, oy, ox);
        }
      }
      //#endfor
      //#endfor
      //#endfor
    }
    //#endfor
    //#endfor
  }
}
//#else
@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let residue = tile / (p.pixelTiles * p.channelTiles);
  if (residue >= p.stride * p.stride) {
    return;
  }
  let residueY = residue / p.stride;
  let residueX = residue % p.stride;
  let channel = (tile / p.pixelTiles) % p.channelTiles * {{CHANNELS}}u;
  let segment = (tile % p.pixelTiles) * {{LANES}}u + lane;
  let isInside = segment < p.N * p.classHeight * p.segments;
  let safe = select(0u, segment, isInside);
  let classX = (safe % p.segments) * {{PIXELS}}u;
  let classY = (safe / p.segments) % p.classHeight;
  let n = safe / (p.segments * p.classHeight);

  let firstU = (residueY + p.padTop) % p.stride;
  let firstV = (residueX + p.padLeft) % p.stride;
  // Output pixel that the first tap reaches; each further tap reaches one less.
  let firstY = i32(classY + (residueY + p.padTop) / p.stride);
  let firstX = i32(classX + (residueX + p.padLeft) / p.stride);
  let taps = p.KH * p.KW;
  //#for g GROUPS
  //#if BROADCAST
  let channelOfLane{{g}} = min(channel + {{g}}u * {{SUB}}u + lane, p.IC - 1u) * taps;
  //#else
  //#for s SUB
  let channel{{g}}_{{s}} = min(channel + {{g}}u * {{SUB}}u + {{s}}u, p.IC - 1u) * taps;
  //#endfor
  //#endif
  //#for s SUB
  //#for i PIXELS
  var sum{{g}}_{{s}}_{{i}} = 0.0;
  //#endfor
  //#endfor
  //#endfor

  for (var o = 0u; o < p.OC; o++) {
    let plane = (n * p.OC + o) * p.OH * p.OW;
    var y = firstY;
    for (var u = firstU; u < p.KH; u += p.stride) {
      let lineInside = y >= 0 && y < i32(p.OH);
      let line = plane + u32(clamp(y, 0, i32(p.OH) - 1)) * p.OW;
      var x = firstX;
      for (var v = firstV; v < p.KW; v += p.stride) {
        //#for i PIXELS
        let g{{i}} = select(0.0, f32(dY[line + u32(clamp(x + {{i}}, 0, i32(p.OW) - 1))]),
                            lineInside && x + {{i}} >= 0 && x + {{i}} < i32(p.OW));
        //#endfor
        let tap = o * p.IC * taps + u * p.KW + v;
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
            sum{{g}}_{{s}}_{{i}} = fma(w, g{{i}}, sum{{g}}_{{s}}_{{i}});
            //#endfor
          }
          //#endfor
        }
        //#endfor
        x--;
      }
      y--;
    }
  }

  let oy = classY * p.stride + residueY;
  if (isInside && oy < p.H) {
    //#for g GROUPS
    //#for s SUB
    if (channel + {{g}}u * {{SUB}}u + {{s}}u < p.IC) {
      //#for i PIXELS
      {
        let ox = (classX + {{i}}u) * p.stride + residueX;
        if (ox < p.W) {
          finish(sum{{g}}_{{s}}_{{i}}, n, channel + {{g}}u * {{SUB}}u + {{s}}u, oy, ox);
        }
      }
      //#endfor
    }
    //#endfor
    //#endfor
  }
}
//#endif
