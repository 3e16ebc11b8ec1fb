// C[b] = op(A[b]) · op(B[b]), from registers only: no workgroup memory, no barriers. The fastest form on CPU adapters
// (lavapipe, SwiftShader), where a subgroup is one SIMD vector, and the form for few rows on any adapter.
//
// Shapes: A [M, K] (TRANS_A: [K, M]), B [K, N] (TRANS_B: [N, K]), C [M, N], f32 or f16 in memory, f32 in registers.
// Bindings: 0 params, 1 A, 2 B, 3 C, epilogue operands from 4 on. Strides between batches in elements; 0 broadcasts.
// Mapping: a workgroup is LANES invocations beside each other along columns and owns ROWS x (COLS · LANES) of C, ROWS
// = GROUPS · SUB · EACH; the row depends on the workgroup alone. Workgroups run along rows first, so that neighbours share
// their columns of B. COLUMNS_FIRST (short K): along columns first, because then the time is that of writing C.
// K is taken in steps of STEP (8, or 4 where K is less): COLS·8 values of B stay in registers while every row passes over them, because accumulators
// that live through a step in a register and are spilled between steps cost less than reloading B (35 against 30
// GFLOP/s).
//
// BROADCAST (subgroups of exactly LANES, 8 or 16): a lane loads one of STEP neighbouring values of A, of EACH rows (two where
// there are 16 lanes), and the others get it by subgroupBroadcast. Costs of one step on lavapipe, in cycles of one core:
// multiply-add 0.5, gather of 8 lanes 3.5, load at a uniform address 1.8 (bounds check), broadcast from a register under 1.
// Without BROADCAST the loads of A are at uniform addresses and any subgroup size will do.
// Measured on lavapipe (Mesa 26.1, 2 cores; GFLOP/s as if both cores worked on nothing else, f32):
//   ROWS x COLS      8x4   16x4   32x4   16x8   32x2      16x4 without BROADCAST 54, tiled kernel 14
//   NN 512³          53    66     72     59     54
//   NT 512³          50    64     70     45     51        NN 1024³ (rows 4 KiB apart): 16x4 43, 32x4 52
//   16 lanes (AVX-512): NN 512³ 69, 76, 82 with 16x4, 32x4, 64x4; NT 54, 70, 77, and 71 with 32x2
//   one f16 operand 36 and 44, two 31 and 33 (a gather of halves goes lane by lane); Dawn's robustness on: 55 and 56
// Limits: any M, N, K >= 1; edges are clamped while reading and skipped while storing. Offsets are u32: 2^32 elements.
//#if USES_SUBGROUPS
enable subgroups;
//#endif
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
  first : u32,          // the stretch of k that this dispatch adds, [0, K) where there is only one
  end : u32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> A : array<{{A}}>;
@group(0) @binding(2) var<storage, read_write> B : array<{{B}}>;
@group(0) @binding(3) var<storage, read_write> C : array<{{C}}>;
{{EPILOGUE_BINDINGS}}

fn finish(sum : f32, row : u32, col : u32, b : u32) {
  let index = b * p.strideC + row * p.N + col;
  var v = sum;
  //#if ACCUMULATE
  v += f32(C[index]);
  //#endif
  {{EPILOGUE}}
  C[index] = {{C}}(v);
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let b = tile / (p.tilesM * p.tilesN);
  if (b >= p.batch) {
    return;
  }
  let tileInBatch = tile % (p.tilesM * p.tilesN);
  //#if COLUMNS_FIRST
  let row = (tileInBatch / p.tilesN) * {{ROWS}}u;
  let col = (tileInBatch % p.tilesN) * {{COLUMNS}}u + lane;
  //#else
  let row = (tileInBatch % p.tilesM) * {{ROWS}}u;
  let col = (tileInBatch / p.tilesM) * {{COLUMNS}}u + lane;
  //#endif
  let K = p.K;
  let baseA = b * p.strideA;
  let baseB = b * p.strideB;
  // Steps between neighbours along k.
  //#if TRANS_A
  let stepA = p.M;
  //#else
  let stepA = 1u;
  //#endif
  //#if TRANS_B
  let stepB = 1u;
  //#else
  let stepB = p.N;
  //#endif

  //#for g GROUPS
  //#for s SUB
  //#for e EACH
  let row{{g}}_{{s}}_{{e}} = min(row + ({{g}}u * {{SUB}}u + {{s}}u) * {{EACH}}u + {{e}}u, p.M - 1u);
  //#if TRANS_A
  let a{{g}}_{{s}}_{{e}} = baseA + row{{g}}_{{s}}_{{e}};
  //#else
  let a{{g}}_{{s}}_{{e}} = baseA + row{{g}}_{{s}}_{{e}} * K;
  //#endif
  //#for c COLS
  var sum{{g}}_{{s}}_{{e}}_{{c}} = 0.0;
  //#endfor
  //#endfor
  //#if BROADCAST
  //#if !TRANS_A
  let rowOfLane{{g}}_{{s}} = min(row + ({{g}}u * {{SUB}}u + {{s}}u) * {{EACH}}u + lane / {{STEP}}u, p.M - 1u);
  let ofLane{{g}}_{{s}} = baseA + rowOfLane{{g}}_{{s}} * K + lane % {{STEP}}u;
  //#endif
  //#endif
  //#endfor
  //#if BROADCAST
  //#if TRANS_A
  let rowOfLane{{g}} = baseA + min(row + {{g}}u * {{SUB}}u + lane, p.M - 1u);
  //#endif
  //#endif
  //#endfor
  //#for c COLS
  let col{{c}} = min(col + {{c}}u * {{LANES}}u, p.N - 1u);
  //#if TRANS_B
  let b{{c}} = baseB + col{{c}} * K;
  //#else
  let b{{c}} = baseB + col{{c}};
  //#endif
  //#endfor

  var k = p.first;
  for (; k + {{STEP}}u <= p.end; k += {{STEP}}u) {
    //#for q STEP
    let k{{q}} = (k + {{q}}u) * stepB;
    //#for c COLS
    let b{{c}}_{{q}} = f32(B[b{{c}} + k{{q}}]);
    //#endfor
    //#endfor
    //#for g GROUPS
    //#if BROADCAST
    //#if TRANS_A
    // Lanes along rows: one load serves eight rows at one k.
    //#for q STEP
    let a{{g}}_k{{q}} = f32(A[rowOfLane{{g}} + (k + {{q}}u) * stepA]);
    //#endfor
    //#endif
    //#endif
    //#for s SUB
    {
      //#if BROADCAST
      //#if !TRANS_A
      // Lanes along k: one load serves eight k of a row, of two rows where there are 16 lanes.
      let aLanes = f32(A[ofLane{{g}}_{{s}} + k]);
      //#endif
      //#endif
      //#for e EACH
      //#for q STEP
      {
        //#if BROADCAST
        //#if TRANS_A
        let a = subgroupBroadcast(a{{g}}_k{{q}}, {{s}}u);
        //#else
        let a = subgroupBroadcast(aLanes, {{e}}u * {{STEP}}u + {{q}}u);
        //#endif
        //#else
        let a = f32(A[a{{g}}_{{s}}_{{e}} + (k + {{q}}u) * stepA]);
        //#endif
        //#for c COLS
        sum{{g}}_{{s}}_{{e}}_{{c}} = fma(a, b{{c}}_{{q}}, sum{{g}}_{{s}}_{{e}}_{{c}});
        //#endfor
      }
      //#endfor
      //#endfor
    }
    //#endfor
    //#endfor
  }
  for (; k < p.end; k++) {
    //#for c COLS
    let last{{c}} = f32(B[b{{c}} + k * stepB]);
    //#endfor
    //#for g GROUPS
    //#for s SUB
    //#for e EACH
    {
      let a = f32(A[a{{g}}_{{s}}_{{e}} + k * stepA]);
      //#for c COLS
      sum{{g}}_{{s}}_{{e}}_{{c}} = fma(a, last{{c}}, sum{{g}}_{{s}}_{{e}}_{{c}});
      //#endfor
    }
    //#endfor
    //#endfor
    //#endfor
  }

  //#for g GROUPS
  //#for s SUB
  //#for e EACH
  if (row + ({{g}}u * {{SUB}}u + {{s}}u) * {{EACH}}u + {{e}}u < p.M) {
    //#for c COLS
    if (col + {{c}}u * {{LANES}}u < p.N) {
      finish(sum{{g}}_{{s}}_{{e}}_{{c}}, row + ({{g}}u * {{SUB}}u + {{s}}u) * {{EACH}}u + {{e}}u, col + {{c}}u * {{LANES}}u, b);
    }
    //#endfor
  }
  //#endfor
  //#endfor
  //#endfor
}
