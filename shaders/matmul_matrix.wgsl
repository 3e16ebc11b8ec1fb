// C[b] = op(A[b]) · op(B[b]) on subgroup matrices (tensor cores): f16 operands, f32 sums. With PICTURES an operand is read
// out of pictures while it is staged, and the product is a convolution or a gradient of one (ops/conv_matrix.ts).
//
// Shapes: A [M, K] (TRANS_A: [K, M]), B [K, N] (TRANS_B: [N, K]), C [M, N]; A, B and C f32 or f16 in memory, B also bf16,
// int8 or nf4 words. What is wider than f16 is rounded to it while it is staged; sums are f32.
// Bindings: 0 params, 1 A, 2 B, with SCALED 3 the factors of B's blocks, then C, then epilogue operands.
// Mapping: a workgroup owns TILE_M x TILE_N of C and walks along K in steps of TILE_K; it has GROUPS_M x GROUPS_N
// subgroups, and each owns MATRICES_M x MATRICES_N matrices of SIZE_M x SIZE_N. Operands lie in workgroup memory as rows
// of vec4<u32> (eight halves), each row with one vec4 behind it: without that the banks collide, and an H100 gave 123
// TFLOP/s instead of 283 at 4096³ (16x16x16, 128x128, 2x2 subgroups of 4x4 matrices, K 32; cuBLAS 758). The next tile is
// fetched into registers meanwhile; two tiles in workgroup memory were slower there (175).
// STRAIGHT: A holds halves and every tile of it is whole, so its matrices come straight from memory, through the caches,
// and only B is staged: half the reads of workgroup memory.
// Edges: what lies outside reads as zero. With DIRECT every tile is whole and matrices go straight to C; otherwise they
// pass through the workgroup memory of the operands, and each value is checked, finished by the epilogue and stored;
// VECTOR_C: four at a time, where rows of C are that long.
// Splits: with p.splits above 1 C is f32 [splits, batch, M, N], one part of K each, and a second kernel adds them in order.
// Order: tiles go down p.band rows of tiles before the next column, so that neighbours in time share operands in cache.
// Limits: subgroups of exactly LANES, THREADS invocations; any M, N, K >= 1. p.chunk is a multiple of TILE_K.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);

struct Params {
  M : u32,
  N : u32,
  K : u32,
  batch : u32,
  strideA : u32,
  strideB : u32,
  strideC : u32,
  tilesM : u32,
  tilesN : u32,
  fold : u32,
  band : u32,
  splits : u32,
  chunk : u32,
  //#if PICTURES
  // Height, width and all values of a picture that is read, width and pixels of one that is made, zeros before a picture.
  H : u32,
  W : u32,
  picture : u32,
  OW : u32,
  pixels : u32,
  padTop : i32,
  padLeft : i32,
  //#endif
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> A : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> B : array<{{B}}>;
//#if SCALED
@group(0) @binding(3) var<storage, read_write> scales : array<f32>;
@group(0) @binding(4) var<storage, read_write> C : array<{{C}}>;
//#else
@group(0) @binding(3) var<storage, read_write> C : array<{{C}}>;
//#endif
{{EPILOGUE_BINDINGS}}

alias Left = subgroup_matrix_left<f16, {{SIZE_K}}, {{SIZE_M}}>;
alias Right = subgroup_matrix_right<f16, {{SIZE_N}}, {{SIZE_K}}>;
alias Sums = subgroup_matrix_result<f32, {{SIZE_N}}, {{SIZE_M}}>;

// Rows of the staged operands in vec4s.
const pitchA = {{PITCH_A}}u;
const pitchB = {{PITCH_B}}u;
const startB = {{START_B}}u;
// Rows of the results that a subgroup hands over at a time, in vec4s, and its own place among them.
const pitchC = {{MATRICES_N}}u * {{SIZE_N}}u / 4u;
const ownC = pitchC * {{SIZE_M}}u;
var<workgroup> stage : array<vec4<u32>, {{STAGE}}>;

//#if TABLE
// Both entries of every byte of nf4 codes.
var<workgroup> pairs : array<vec2<f32>, 256>;
//#endif

{{DECODE}}

fn halves(low : vec4<f32>, high : vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(low)), bitcast<vec2<u32>>(vec4<f16>(high)));
}

{{LOAD_A}}
{{LOAD_B}}

//#if !DIRECT
//#if VECTOR_C
// Four neighbours of a row.
fn finish(sums : vec4<f32>, row : u32, col : u32, start : u32) {
  if (row >= p.M || col >= p.N) {
    return;
  }
  let first = {{PLACE}};
  var four = sums;
  //#if ACCUMULATE
  four += vec4<f32>(C[first >> 2u]);
  //#endif
  //#for j 4
  {
    let index = first + {{j}}u;
    var v = four[{{j}}];
    {{EPILOGUE}}
    four[{{j}}] = v;
  }
  //#endfor
  C[first >> 2u] = {{C}}(four);
}
//#else
fn finishOne(sum : f32, row : u32, col : u32, start : u32) {
  if (row >= p.M || col >= p.N) {
    return;
  }
  let index = {{PLACE}};
  var v = sum;
  //#if ACCUMULATE
  v += f32(C[index]);
  //#endif
  {{EPILOGUE}}
  C[index] = {{C}}(v);
}

fn finish(sums : vec4<f32>, row : u32, col : u32, start : u32) {
  //#for j 4
  finishOne(sums[{{j}}], row, col + {{j}}u, start);
  //#endfor
}
//#endif
//#endif

@compute @workgroup_size({{THREADS}})
fn main(
  @builtin(local_invocation_index) thread : u32,
  @builtin(workgroup_id) workgroup : vec3<u32>,
  @builtin(subgroup_id) subgroup : u32,
  @builtin(subgroup_invocation_id) lane : u32,
) {
  let tiles = p.tilesM * p.tilesN;
  let job = workgroup.x + workgroup.y * p.fold;
  let part = job / tiles;
  if (part >= p.batch * p.splits) {
    return;
  }
  let b = part % p.batch;
  let first = (part / p.batch) * p.chunk;
  let last = min(first + p.chunk, p.K);
  let inBatch = job % tiles;
  let bandStart = inBatch / (p.band * p.tilesN) * p.band;
  let inBand = inBatch - bandStart * p.tilesN;
  let bandRows = min(p.band, p.tilesM - bandStart);
  let tileRow = (bandStart + inBand % bandRows) * {{TILE_M}}u;
  let tileCol = (inBand / bandRows) * {{TILE_N}}u;
  let baseA = b * p.strideA;
  let baseB = b * p.strideB;
  let ownRow = (subgroup / {{GROUPS_N}}u) * {{MATRICES_M}}u * {{SIZE_M}}u;
  let ownCol = (subgroup % {{GROUPS_N}}u) * {{MATRICES_N}}u * {{SIZE_N}}u;

  //#if TABLE
  for (var at = thread; at < 256u; at += {{THREADS}}u) {
    pairs[at] = vec2<f32>(entry(at & 15u), entry(at >> 4u));
  }
  workgroupBarrier();
  //#endif

  //#if AHEAD
  // Which eight neighbours of a tile this invocation fetches with its i-th load.
  //#if !STRAIGHT
  //#for i LOADS_A
  let atA{{i}} = thread + {{i}}u * {{THREADS}}u;
  //#if TRANS_A
  let acrossA{{i}} = atA{{i}} / {{TILE_M_GROUPS}}u;
  let alongA{{i}} = atA{{i}} % {{TILE_M_GROUPS}}u;
  var nextA{{i}} = eightA(baseA, first + acrossA{{i}}, tileRow + alongA{{i}} * 8u);
  //#else
  let acrossA{{i}} = atA{{i}} / {{TILE_K_GROUPS}}u;
  let alongA{{i}} = atA{{i}} % {{TILE_K_GROUPS}}u;
  var nextA{{i}} = eightA(baseA, tileRow + acrossA{{i}}, first + alongA{{i}} * 8u);
  //#endif
  let placeA{{i}} = acrossA{{i}} * pitchA + alongA{{i}};
  //#endfor
  //#endif
  //#for i LOADS_B
  let atB{{i}} = thread + {{i}}u * {{THREADS}}u;
  //#if TRANS_B
  let acrossB{{i}} = atB{{i}} / {{TILE_K_GROUPS}}u;
  let alongB{{i}} = atB{{i}} % {{TILE_K_GROUPS}}u;
  var nextB{{i}} = eightB(baseB, tileCol + acrossB{{i}}, first + alongB{{i}} * 8u);
  //#else
  let acrossB{{i}} = atB{{i}} / {{TILE_N_GROUPS}}u;
  let alongB{{i}} = atB{{i}} % {{TILE_N_GROUPS}}u;
  var nextB{{i}} = eightB(baseB, first + acrossB{{i}}, tileCol + alongB{{i}} * 8u);
  //#endif
  let placeB{{i}} = startB + acrossB{{i}} * pitchB + alongB{{i}};
  //#endfor
  //#endif

  //#for r MATRICES_M
  //#for c MATRICES_N
  var sum{{r}}_{{c}} = Sums();
  //#endfor
  //#endfor

  for (var k0 = first; k0 < last; k0 += {{TILE_K}}u) {
    workgroupBarrier();
    //#if AHEAD
    //#if !STRAIGHT
    //#for i LOADS_A
    stage[placeA{{i}}] = nextA{{i}};
    //#endfor
    //#endif
    //#for i LOADS_B
    stage[placeB{{i}}] = nextB{{i}};
    //#endfor
    workgroupBarrier();
    let following = k0 + {{TILE_K}}u;
    if (following < last) {
      //#if !STRAIGHT
      //#for i LOADS_A
      //#if TRANS_A
      nextA{{i}} = eightA(baseA, following + acrossA{{i}}, tileRow + alongA{{i}} * 8u);
      //#else
      nextA{{i}} = eightA(baseA, tileRow + acrossA{{i}}, following + alongA{{i}} * 8u);
      //#endif
      //#endfor
      //#endif
      //#for i LOADS_B
      //#if TRANS_B
      nextB{{i}} = eightB(baseB, tileCol + acrossB{{i}}, following + alongB{{i}} * 8u);
      //#else
      nextB{{i}} = eightB(baseB, following + acrossB{{i}}, tileCol + alongB{{i}} * 8u);
      //#endif
      //#endfor
    }
    //#else
    //#if !STRAIGHT
    for (var at = thread; at < {{GROUPS_A}}u; at += {{THREADS}}u) {
      //#if TRANS_A
      let across = at / {{TILE_M_GROUPS}}u;
      let along = at % {{TILE_M_GROUPS}}u;
      stage[across * pitchA + along] = eightA(baseA, k0 + across, tileRow + along * 8u);
      //#else
      let across = at / {{TILE_K_GROUPS}}u;
      let along = at % {{TILE_K_GROUPS}}u;
      stage[across * pitchA + along] = eightA(baseA, tileRow + across, k0 + along * 8u);
      //#endif
    }
    //#endif
    for (var at = thread; at < {{GROUPS_B}}u; at += {{THREADS}}u) {
      //#if TRANS_B
      let across = at / {{TILE_K_GROUPS}}u;
      let along = at % {{TILE_K_GROUPS}}u;
      stage[startB + across * pitchB + along] = eightB(baseB, tileCol + across, k0 + along * 8u);
      //#else
      let across = at / {{TILE_N_GROUPS}}u;
      let along = at % {{TILE_N_GROUPS}}u;
      stage[startB + across * pitchB + along] = eightB(baseB, k0 + across, tileCol + along * 8u);
      //#endif
    }
    workgroupBarrier();
    //#endif
    for (var round = 0u; round < {{ROUNDS}}u; round++) {
    //#for s STEPS
    {
      let step = (round * {{STEPS}}u + {{s}}u) * {{SIZE_K}}u;
      //#for r MATRICES_M
      //#if STRAIGHT
      //#if TRANS_A
      let left{{r}} = subgroupMatrixLoad<Left, col_major>(
        &A, (baseA + (k0 + step) * p.M + tileRow + ownRow + {{r}}u * {{SIZE_M}}u) / 8u, p.M / 8u);
      //#else
      let left{{r}} = subgroupMatrixLoad<Left, row_major>(
        &A, (baseA + (tileRow + ownRow + {{r}}u * {{SIZE_M}}u) * p.K + k0 + step) / 8u, p.K / 8u);
      //#endif
      //#else
      //#if TRANS_A
      let left{{r}} = subgroupMatrixLoad<Left, col_major>(
        &stage, step * pitchA + (ownRow + {{r}}u * {{SIZE_M}}u) / 8u, pitchA);
      //#else
      let left{{r}} = subgroupMatrixLoad<Left, row_major>(
        &stage, (ownRow + {{r}}u * {{SIZE_M}}u) * pitchA + step / 8u, pitchA);
      //#endif
      //#endif
      //#endfor
      //#for c MATRICES_N
      {
        //#if TRANS_B
        let right = subgroupMatrixLoad<Right, col_major>(
          &stage, startB + (ownCol + {{c}}u * {{SIZE_N}}u) * pitchB + step / 8u, pitchB);
        //#else
        let right = subgroupMatrixLoad<Right, row_major>(
          &stage, startB + step * pitchB + (ownCol + {{c}}u * {{SIZE_N}}u) / 8u, pitchB);
        //#endif
        //#for r MATRICES_M
        sum{{r}}_{{c}} = subgroupMatrixMultiplyAccumulate(left{{r}}, right, sum{{r}}_{{c}});
        //#endfor
      }
      //#endfor
    }
    //#endfor
    }
  }

  let start = part * p.strideC;
  //#if DIRECT
  //#for r MATRICES_M
  //#for c MATRICES_N
  subgroupMatrixStore<row_major>(
    &C, start + (tileRow + ownRow + {{r}}u * {{SIZE_M}}u) * p.N + tileCol + ownCol + {{c}}u * {{SIZE_N}}u,
    sum{{r}}_{{c}}, p.N);
  //#endfor
  //#endfor
  //#else
  let own = subgroup * ownC;
  //#for r MATRICES_M
  workgroupBarrier();
  //#for c MATRICES_N
  subgroupMatrixStore<row_major>(&stage, own + {{c}}u * {{SIZE_N}}u / 4u, sum{{r}}_{{c}}, pitchC);
  //#endfor
  workgroupBarrier();
  for (var at = lane; at < ownC; at += {{LANES}}u) {
    let row = tileRow + ownRow + {{r}}u * {{SIZE_M}}u + at / pitchC;
    finish(bitcast<vec4<f32>>(stage[own + at]), row, tileCol + ownCol + at % pitchC * 4u, start);
  }
  //#endfor
  //#endif
}
