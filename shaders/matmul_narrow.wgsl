// C[b] = A[b]ᵀ · op(B[b]) for few columns, on CPU adapters: lanes lie along rows, because N columns would leave most of a
// vector idle. The weight gradient of a LoRA's second factor is such a product. SWAPPED: C is stored [N, M], which makes it
// op(B)ᵀ · A, a product of few rows; M, N, A and B are those of this kernel then, not of the product.
//
// Shapes: A [K, M], B [K, N] (TRANS_B: [N, K]), C [M, N] (SWAPPED: [N, M]) with N = COLS, f32 or f16 in memory, f32 in registers. Bindings: 0
// params, 1 A as vectors of four, 2 B, 3 C, epilogue operands from 4 on. Mapping: a workgroup of LANES owns VECS times 4 LANES
// rows, four a lane and time. B is read at addresses that all lanes share; terms are added in rising order of k.
// Limits: M and strideA are multiples of 4, COLS at most 4.
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
  fold : u32,
}

@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> A : array<vec4<{{A}}>>;
@group(0) @binding(2) var<storage, read_write> B : array<{{B}}>;
@group(0) @binding(3) var<storage, read_write> C : array<f32>;
{{EPILOGUE_BINDINGS}}

//#if SWAPPED
fn finish(sum : f32, col : u32, row : u32, b : u32) {
  let index = b * p.strideC + row * p.M + col;
//#else
fn finish(sum : f32, row : u32, col : u32, b : u32) {
  let index = b * p.strideC + row * p.N + col;
//#endif
  var v = sum;
  //#if ACCUMULATE
  v += C[index];
  //#endif
  {{EPILOGUE}}
  C[index] = v;
}

@compute @workgroup_size({{LANES}})
fn main(@builtin(local_invocation_index) lane : u32, @builtin(workgroup_id) workgroup : vec3<u32>) {
  let tile = workgroup.x + workgroup.y * p.fold;
  let b = tile / p.tilesM;
  if (b >= p.batch) {
    return;
  }
  //#for r VECS
  let row{{r}} = (((tile % p.tilesM) * {{VECS}}u + {{r}}u) * {{LANES}}u + lane) * 4u;
  var at{{r}} = (b * p.strideA + min(row{{r}}, p.M - 4u)) / 4u;
  //#for c COLS
  var sum{{r}}_{{c}} = vec4<f32>();
  //#endfor
  //#endfor
  var k = 0u;
  for (; k + 4u <= p.K; k += 4u) {
    //#for r VECS
    //#for q 4
    let a{{r}}_{{q}} = vec4<f32>(A[at{{r}} + {{q}}u * (p.M / 4u)]);
    //#endfor
    at{{r}} += p.M;
    //#endfor
    //#for q 4
    //#for c COLS
    {
      //#if TRANS_B
      let w = vec4<f32>(f32(B[b * p.strideB + {{c}}u * p.K + k + {{q}}u]));
      //#else
      let w = vec4<f32>(f32(B[b * p.strideB + (k + {{q}}u) * p.N + {{c}}u]));
      //#endif
      //#for r VECS
      sum{{r}}_{{c}} = fma(a{{r}}_{{q}}, w, sum{{r}}_{{c}});
      //#endfor
    }
    //#endfor
    //#endfor
  }
  for (; k < p.K; k++) {
    //#for r VECS
    {
      let a = vec4<f32>(A[at{{r}}]);
      at{{r}} += p.M / 4u;
      //#for c COLS
      //#if TRANS_B
      sum{{r}}_{{c}} = fma(a, vec4<f32>(f32(B[b * p.strideB + {{c}}u * p.K + k])), sum{{r}}_{{c}});
      //#else
      sum{{r}}_{{c}} = fma(a, vec4<f32>(f32(B[b * p.strideB + k * p.N + {{c}}u])), sum{{r}}_{{c}});
      //#endif
      //#endfor
    }
    //#endfor
  }
  //#for r VECS
  if (row{{r}} < p.M) {
    //#for c COLS
    finish(sum{{r}}_{{c}}.x, row{{r}}, {{c}}u, b);
    finish(sum{{r}}_{{c}}.y, row{{r}} + 1u, {{c}}u, b);
    finish(sum{{r}}_{{c}}.z, row{{r}} + 2u, {{c}}u, b);
    finish(sum{{r}}_{{c}}.w, row{{r}} + 3u, {{c}}u, b);
    //#endfor
  }
  //#endfor
}
