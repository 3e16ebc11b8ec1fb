// C[b] = op(A[b]) · op(B[b]) through workgroup memory: the form for real GPUs.
//
// Shapes: A [M, K] (TRANS_A: [K, M]), B [K, N] (TRANS_B: [N, K]), C [M, N], f32 or f16 in memory, f32 in registers.
// Bindings: 0 params, 1 A, 2 B, 3 C, epilogue operands from 4 on. Strides between batches in elements; 0 broadcasts.
// Mapping: a workgroup owns TILE_M x TILE_N of C and walks along K in steps of TILE_K; an invocation owns
// THREAD_M x THREAD_N values. A lies transposed in workgroup memory ([k][row], rows padded by 4 against bank
// conflicts), so that the inner loop reads neighbours; the next tile is fetched into registers while the present one
// is multiplied.
// A first kernel of this layout (128x64, K 16, 8x4) reached 39.9 TFLOP/s on an H100 at 4096³, cuBLAS 51.7, other tiles
// 32 to 40; this text is checked on lavapipe alone, where it runs at 14 GFLOP/s against 66 of matmul_direct.
// Shared double buffering and vec4 reads from workgroup memory lost against this elsewhere and are left out.
// VECTOR_B: B is read four neighbours at a time (f32 or words of a stored weight, row length and batch stride divisible
// by 4). CODES: B holds the words of a stored weight, which are decoded on the way (DECODE is the text of lib/decode.wgsl);
// with SCALED binding 3 holds the factors of its blocks, and C and the epilogue's operands follow.
// Limits: 16 KiB of workgroup memory, 256 invocations; any M, N, K >= 1: edges read as zero and are not stored.
//#if USES_F16
enable f16;
//#endif

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
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> A : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> B : array<{{PLACE_B}}>;
//#if SCALED
@group(0) @binding(3) var<storage, read_write> scales : array<f32>;
@group(0) @binding(4) var<storage, read_write> C : array<{{C}}>;
//#else
@group(0) @binding(3) var<storage, read_write> C : array<{{C}}>;
//#endif
{{EPILOGUE_BINDINGS}}

const pitchA = {{TILE_M}}u + 4u;
const pitchB = {{TILE_N}}u + 4u;
var<workgroup> tileA : array<f32, {{TILE_K}} * ({{TILE_M}} + 4)>;
//#if TABLE
// Both entries of every byte of nf4 codes: searching for each would cost a fifth of the multiply-adds.
var<workgroup> pairs : array<vec2<f32>, 256>;
//#endif
var<workgroup> tileB : array<f32, {{TILE_K}} * ({{TILE_N}} + 4)>;

fn finish(sum : f32, row : u32, col : u32, b : u32) {
  let index = b * p.strideC + row * p.N + col;
  var v = sum;
  //#if ACCUMULATE
  v += f32(C[index]);
  //#endif
  {{EPILOGUE}}
  C[index] = {{C}}(v);
}

/// op(A)[row, k], 0 outside.
fn loadA(base : u32, row : u32, k : u32) -> f32 {
  if (row >= p.M || k >= p.K) {
    return 0.0;
  }
  //#if TRANS_A
  return f32(A[base + k * p.M + row]);
  //#else
  return f32(A[base + row * p.K + k]);
  //#endif
}

//#if CODES
{{DECODE}}

fn scaleOf(i : u32) -> f32 {
  //#if SCALED
  return scales[i >> 6u];
  //#else
  return 1.0;
  //#endif
}
//#endif

//#if VECTOR_B
/// Four neighbours in memory: of op(B)[k, col…] or, transposed, of op(B)[k…, col].
fn loadB(base : u32, k : u32, col : u32) -> vec4<f32> {
  if (k >= p.K || col >= p.N) {
    return vec4<f32>();
  }
  //#if TRANS_B
  let at = base + col * p.K + k;
  //#else
  let at = base + k * p.N + col;
  //#endif
  //#if CODES
  let scale = scaleOf(at);
  //#if TABLE
  let codes = B[at >> 3u] >> (4u * (at & 7u));
  return vec4<f32>(pairs[codes & 255u], pairs[(codes >> 8u) & 255u]) * scale;
  //#else
  let word = B[at >> {{SHIFT}}u];
  //#if PAIRS
  let other = B[(at >> {{SHIFT}}u) + 1u];
  //#else
  let other = word;
  //#endif
  return vec4<f32>(
    value(word, scale, at), value(word, scale, at + 1u), value(other, scale, at + 2u), value(other, scale, at + 3u));
  //#endif
  //#else
  return B[at / 4u];
  //#endif
}
//#else
fn loadB(base : u32, k : u32, col : u32) -> f32 {
  if (k >= p.K || col >= p.N) {
    return 0.0;
  }
  //#if TRANS_B
  let at = base + col * p.K + k;
  //#else
  let at = base + k * p.N + col;
  //#endif
  //#if CODES
  return value(B[at >> {{SHIFT}}u], scaleOf(at), at);
  //#else
  return f32(B[at]);
  //#endif
}
//#endif

@compute @workgroup_size({{THREADS}})
fn main(@builtin(local_invocation_index) thread : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let b = tile / (p.tilesM * p.tilesN);
  if (b >= p.batch) {
    return;
  }
  //#if TABLE
  for (var at = thread; at < 256u; at += {{THREADS}}u) {
    pairs[at] = vec2<f32>(entry(at & 15u), entry(at >> 4u));
  }
  workgroupBarrier();
  //#endif
  let tileInBatch = tile % (p.tilesM * p.tilesN);
  let tileRow = (tileInBatch % p.tilesM) * {{TILE_M}}u;
  let tileCol = (tileInBatch / p.tilesM) * {{TILE_N}}u;
  let baseA = b * p.strideA;
  let baseB = b * p.strideB;
  let localRow = (thread / {{COLUMN_THREADS}}u) * {{THREAD_M}}u;
  let localCol = (thread % {{COLUMN_THREADS}}u) * {{THREAD_N}}u;

  // Which element of a tile this invocation fetches with its i-th load: neighbours in memory go to neighbouring
  // threads.
  //#for i LOADS_A
  let elementA{{i}} = thread + {{i}}u * {{THREADS}}u;
  //#if TRANS_A
  let rowA{{i}} = elementA{{i}} % {{TILE_M}}u;
  let kA{{i}} = elementA{{i}} / {{TILE_M}}u;
  //#else
  let rowA{{i}} = elementA{{i}} / {{TILE_K}}u;
  let kA{{i}} = elementA{{i}} % {{TILE_K}}u;
  //#endif
  var nextA{{i}} = loadA(baseA, tileRow + rowA{{i}}, kA{{i}});
  //#endfor
  //#for i LOADS_B
  //#if VECTOR_B
  let elementB{{i}} = (thread + {{i}}u * {{THREADS}}u) * 4u;
  //#else
  let elementB{{i}} = thread + {{i}}u * {{THREADS}}u;
  //#endif
  //#if TRANS_B
  let colB{{i}} = elementB{{i}} / {{TILE_K}}u;
  let kB{{i}} = elementB{{i}} % {{TILE_K}}u;
  //#else
  let colB{{i}} = elementB{{i}} % {{TILE_N}}u;
  let kB{{i}} = elementB{{i}} / {{TILE_N}}u;
  //#endif
  var nextB{{i}} = loadB(baseB, kB{{i}}, tileCol + colB{{i}});
  //#endfor

  //#for r THREAD_M
  //#for c THREAD_N
  var sum{{r}}_{{c}} = 0.0;
  //#endfor
  //#endfor

  for (var k0 = 0u; k0 < p.K; k0 += {{TILE_K}}u) {
    workgroupBarrier();
    //#for i LOADS_A
    tileA[kA{{i}} * pitchA + rowA{{i}}] = nextA{{i}};
    //#endfor
    //#for i LOADS_B
    //#if VECTOR_B
    //#for j 4
    //#if TRANS_B
    tileB[(kB{{i}} + {{j}}u) * pitchB + colB{{i}}] = nextB{{i}}[{{j}}];
    //#else
    tileB[kB{{i}} * pitchB + colB{{i}} + {{j}}u] = nextB{{i}}[{{j}}];
    //#endif
    //#endfor
    //#else
    tileB[kB{{i}} * pitchB + colB{{i}}] = nextB{{i}};
    //#endif
    //#endfor
    workgroupBarrier();
    let following = k0 + {{TILE_K}}u;
    if (following < p.K) {
      //#for i LOADS_A
      nextA{{i}} = loadA(baseA, tileRow + rowA{{i}}, following + kA{{i}});
      //#endfor
      //#for i LOADS_B
      nextB{{i}} = loadB(baseB, following + kB{{i}}, tileCol + colB{{i}});
      //#endfor
    }
    //#for k TILE_K
    {
      //#for r THREAD_M
      let a{{r}} = tileA[{{k}}u * pitchA + localRow + {{r}}u];
      //#endfor
      //#for c THREAD_N
      let b{{c}} = tileB[{{k}}u * pitchB + localCol + {{c}}u];
      //#endfor
      //#for r THREAD_M
      //#for c THREAD_N
      sum{{r}}_{{c}} = fma(a{{r}}, b{{c}}, sum{{r}}_{{c}});
      //#endfor
      //#endfor
    }
    //#endfor
  }

  //#for r THREAD_M
  //#for c THREAD_N
  if (tileRow + localRow + {{r}}u < p.M && tileCol + localCol + {{c}}u < p.N) {
    finish(sum{{r}}_{{c}}, tileRow + localRow + {{r}}u, tileCol + localCol + {{c}}u, b);
  }
  //#endfor
  //#endfor
}
