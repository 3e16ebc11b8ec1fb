// C[b] = op(A[b]) · op(B[b]) for sums of few terms, on CPU adapters: the time is that of writing C, so B's columns stay in
// registers while rows go by, each written as whole vectors. A sum of four terms is an outer product of four pairs (LoRA).
//
// Shapes: A [M, TERMS] (TRANS_A: [TERMS, M]), B [TERMS, N] (TRANS_B: [N, TERMS]), C [M, N], f32 or f16 in memory, f32 in
// registers. Bindings: 0 params, 1 A, 2 B, 3 C as vectors of four, epilogue operands from 4 on (VECTORS: it takes four
// neighbours). Mapping: a workgroup of LANES owns ROWS rows, four columns a lane; workgroups run along
// columns first. A is read at addresses that all lanes share.
// Limits: N and strideC are multiples of 4, TERMS at most 16.
//#if USES_F16
enable f16;
//#endif

struct Params {
  M : u32,
  N : u32,
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
@group(0) @binding(2) var<storage, read_write> B : array<{{B}}>;
@group(0) @binding(3) var<storage, read_write> C : array<vec4<f32>>;
{{EPILOGUE_BINDINGS}}

fn finish(sum : {{STEP}}, row : u32, col : u32, b : u32) -> {{STEP}} {
  let index = b * p.strideC + row * p.N + col;
  var v = sum;
  {{EPILOGUE}}
  return v;
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let b = tile / (p.tilesM * p.tilesN);
  if (b >= p.batch) {
    return;
  }
  let inBatch = tile % (p.tilesM * p.tilesN);
  let first = (inBatch / p.tilesN) * {{ROWS}}u;
  let end = min(first + {{ROWS}}u, p.M);
  let col = ((inBatch % p.tilesN) * {{LANES}}u + lane) * 4u;
  if (col >= p.N) {
    return;
  }
  //#for q TERMS
  //#if TRANS_B
  let at{{q}} = b * p.strideB + col * {{TERMS}}u + {{q}}u;
  let b{{q}} = vec4<f32>(f32(B[at{{q}}]), f32(B[at{{q}} + {{TERMS}}u]), f32(B[at{{q}} + 2u * {{TERMS}}u]), f32(B[at{{q}} + 3u * {{TERMS}}u]));
  //#else
  let at{{q}} = b * p.strideB + {{q}}u * p.N + col;
  let b{{q}} = vec4<f32>(f32(B[at{{q}}]), f32(B[at{{q}} + 1u]), f32(B[at{{q}} + 2u]), f32(B[at{{q}} + 3u]));
  //#endif
  //#endfor
  for (var row = first; row < end; row++) {
    var v = vec4<f32>();
    //#for q TERMS
    //#if TRANS_A
    v = fma(vec4<f32>(f32(A[b * p.strideA + {{q}}u * p.M + row])), b{{q}}, v);
    //#else
    v = fma(vec4<f32>(f32(A[b * p.strideA + row * {{TERMS}}u + {{q}}u])), b{{q}}, v);
    //#endif
    //#endfor
    let item = (b * p.strideC + row * p.N + col) / 4u;
    //#if ACCUMULATE
    v += C[item];
    //#endif
    //#if VECTORS
    C[item] = finish(v, row, col, b);
    //#else
    C[item] = vec4<f32>(
      finish(v.x, row, col, b), finish(v.y, row, col + 1u, b), finish(v.z, row, col + 2u, b), finish(v.w, row, col + 3u, b));
    //#endif
  }
}
