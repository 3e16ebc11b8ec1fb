// dq = scale ds k on subgroup matrices, with the weights w = exp(scale q kᵀ - log_sum_exp) computed again and
// ds = w * (dout vᵀ - delta) (Dao et al. 2022, "FlashAttention", section B.4). Factors are f16 (ds as well), the rest f32.
//
// Tensors [B, L, H * HEAD]: q, k, v, dout f32 or f16, dq f32; log_sum_exp and delta [B, H, Lq] f32.
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp, 6 delta, 7 dq.
// Mapping: as attention_matrix_forward: a workgroup owns GROUPS * SIZE_M rows of one (b, h), each of its subgroups SIZE_M
// of them with queries, dout and results in matrices; TILE keys and values at a time are staged. Scores and dout vᵀ of a
// subgroup pass through workgroup memory, where LANES / SIZE_M lanes share a row and put ds into the place of the scores.
// Grid: groups * heads * batch workgroups, folded into y with p.fold a row. Limits: subgroups of exactly LANES;
// HEAD a multiple of SIZE_K and SIZE_N; any Lq, Lk >= 1.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);

struct Params {
  batch : u32, heads : u32, rows : u32, keys : u32, groups : u32, fold : u32, scale : f32, width : u32
}
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> q : array<{{Q}}>;
@group(0) @binding(2) var<storage, read_write> k : array<{{K}}>;
@group(0) @binding(3) var<storage, read_write> v : array<{{V}}>;
@group(0) @binding(4) var<storage, read_write> dout : array<{{DOUT}}>;
@group(0) @binding(5) var<storage, read_write> log_sum_exp : array<f32>;
@group(0) @binding(6) var<storage, read_write> delta : array<f32>;
@group(0) @binding(7) var<storage, read_write> dq : array<vec4<f32>>;

alias Left = subgroup_matrix_left<f16, {{SIZE_K}}, {{SIZE_M}}>;
alias Right = subgroup_matrix_right<f16, {{SIZE_N}}, {{SIZE_K}}>;
alias Sums = subgroup_matrix_result<f32, {{SIZE_N}}, {{SIZE_M}}>;

const ROWS = {{GROUPS}}u * {{SIZE_M}}u;
const TILE = {{KEYS}}u;
const THREADS = {{THREADS}}u;
// A head in groups of eight halves; staged rows of it and of scores, in vec4s.
const EIGHTS = {{HEAD}}u / 8u;
const pitch = EIGHTS + 1u;
const pitchS = TILE / 4u + 1u;
// Lanes that share a row, and the keys of each.
const PARTS = {{LANES}}u / {{SIZE_M}}u;
const OWN = TILE / PARTS;
const second = TILE * pitch;
const startS = 2u * second;
var<workgroup> stage : array<vec4<u32>, {{STAGE}}>;

fn halves(low : vec4<f32>, high : vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(low)), bitcast<vec2<u32>>(vec4<f16>(high)));
}

{{LOAD_Q}}
{{LOAD_K}}
{{LOAD_V}}
{{LOAD_DOUT}}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(local_invocation_index) thread : u32,
  @builtin(workgroup_id) group : vec3<u32>,
  @builtin(subgroup_id) subgroup : u32,
  @builtin(subgroup_invocation_id) lane : u32,
) {
  let g = group.x + group.y * p.fold;
  if (g >= p.groups * p.heads * p.batch) { return; }
  let h = (g / p.groups) % p.heads;
  let b = g / (p.groups * p.heads);
  let first = (g % p.groups) * ROWS;
  let column = h * {{HEAD}}u;
  let baseQ = b * p.rows * p.width;
  let baseK = b * p.keys * p.width;
  let mine = subgroup * {{SIZE_M}}u;
  let r = lane % {{SIZE_M}}u;
  let part = lane / {{SIZE_M}}u;
  let row = first + mine + r;
  let ownS = startS + 2u * mine * pitchS;
  let ownT = ownS + {{SIZE_M}}u * pitchS;
  let level = (b * p.heads + h) * p.rows + min(row, p.rows - 1u);
  let lse = log_sum_exp[level];
  let less = delta[level];

  // Queries and dout, a stretch of their columns at a time, since all of them are more than workgroup memory holds.
  //#for c STRETCHES
  workgroupBarrier();
  for (var at = thread; at < ROWS * {{STRETCH_EIGHTS}}u; at += THREADS) {
    let across = at / {{STRETCH_EIGHTS}}u;
    let along = at % {{STRETCH_EIGHTS}}u;
    stage[across * ({{STRETCH_EIGHTS}}u + 1u) + along] =
      eightq(baseQ, first + across, column + ({{c}}u * {{STRETCH_EIGHTS}}u + along) * 8u);
  }
  workgroupBarrier();
  //#for d STRETCH_MATRICES
  let q{{c}}_{{d}} = subgroupMatrixLoad<Left, row_major>(
    &stage, mine * ({{STRETCH_EIGHTS}}u + 1u) + {{d}}u * {{SIZE_K}}u / 8u, {{STRETCH_EIGHTS}}u + 1u);
  //#endfor
  workgroupBarrier();
  for (var at = thread; at < ROWS * {{STRETCH_EIGHTS}}u; at += THREADS) {
    let across = at / {{STRETCH_EIGHTS}}u;
    let along = at % {{STRETCH_EIGHTS}}u;
    stage[across * ({{STRETCH_EIGHTS}}u + 1u) + along] =
      eightdout(baseQ, first + across, column + ({{c}}u * {{STRETCH_EIGHTS}}u + along) * 8u);
  }
  workgroupBarrier();
  //#for d STRETCH_MATRICES
  let g{{c}}_{{d}} = subgroupMatrixLoad<Left, row_major>(
    &stage, mine * ({{STRETCH_EIGHTS}}u + 1u) + {{d}}u * {{SIZE_K}}u / 8u, {{STRETCH_EIGHTS}}u + 1u);
  //#endfor
  //#endfor

  //#for d OUT_MATRICES
  var o{{d}} = Sums();
  //#endfor

  let begin = 0u;
  //#if CAUSAL
  let last = min(p.keys, first + ROWS);
  //#else
  let last = p.keys;
  //#endif
  //#if AHEAD
  // The groups of eight that this invocation fetches, a tile ahead of their use.
  //#for i LOADS
  let across{{i}} = (thread + {{i}}u * THREADS) / EIGHTS;
  let place{{i}} = across{{i}} * pitch + (thread + {{i}}u * THREADS) % EIGHTS;
  let along{{i}} = column + (thread + {{i}}u * THREADS) % EIGHTS * 8u;
  var nextK{{i}} = eightk(baseK, begin + across{{i}}, along{{i}});
  var nextV{{i}} = eightv(baseK, begin + across{{i}}, along{{i}});
  //#endfor
  //#endif
  for (var start = begin; start < last; start += TILE) {
    workgroupBarrier();
    //#if AHEAD
    //#for i LOADS
    stage[place{{i}}] = nextK{{i}};
    stage[second + place{{i}}] = nextV{{i}};
    //#endfor
    workgroupBarrier();
    let following = start + TILE;
    if (following < last) {
      //#for i LOADS
      nextK{{i}} = eightk(baseK, following + across{{i}}, along{{i}});
      nextV{{i}} = eightv(baseK, following + across{{i}}, along{{i}});
      //#endfor
    }
    //#else
    for (var at = thread; at < TILE * EIGHTS; at += THREADS) {
      let across = at / EIGHTS;
      let along = at % EIGHTS;
      stage[across * pitch + along] = eightk(baseK, start + across, column + along * 8u);
      stage[second + across * pitch + along] = eightv(baseK, start + across, column + along * 8u);
    }
    workgroupBarrier();
    //#endif
    for (var round = 0u; round < {{SCORE_ROUNDS}}u; round++) {
      //#for i SCORE_STEPS
      {
        let n = (round * {{SCORE_STEPS}}u + {{i}}u) * {{SIZE_N}}u;
        var s = Sums();
        var t = Sums();
        //#for c STRETCHES
        //#for d STRETCH_MATRICES
        s = subgroupMatrixMultiplyAccumulate(q{{c}}_{{d}}, subgroupMatrixLoad<Right, col_major>(
          &stage, n * pitch + ({{c}}u * {{STRETCH_MATRICES}}u + {{d}}u) * {{SIZE_K}}u / 8u, pitch), s);
        t = subgroupMatrixMultiplyAccumulate(g{{c}}_{{d}}, subgroupMatrixLoad<Right, col_major>(
          &stage, second + n * pitch + ({{c}}u * {{STRETCH_MATRICES}}u + {{d}}u) * {{SIZE_K}}u / 8u, pitch), t);
        //#endfor
        //#endfor
        subgroupMatrixStore<row_major>(&stage, ownS + n / 4u, s, pitchS);
        subgroupMatrixStore<row_major>(&stage, ownT + n / 4u, t, pitchS);
      }
      //#endfor
    }
    workgroupBarrier();

    let at = r * pitchS + part * OWN / 4u;
    var ds : array<vec4<f32>, {{OWN_VECTORS}}>;
    //#for j OWN_VECTORS
    {
      let key = start + part * OWN + {{j}}u * 4u + vec4<u32>(0u, 1u, 2u, 3u);
      //#if CAUSAL
      let seen = (key < vec4<u32>(p.keys)) & (key <= vec4<u32>(row)) & vec4<bool>(row < p.rows);
      //#else
      let seen = (key < vec4<u32>(p.keys)) & vec4<bool>(row < p.rows);
      //#endif
      let s = bitcast<vec4<f32>>(stage[ownS + at + {{j}}u]) * p.scale;
      let t = bitcast<vec4<f32>>(stage[ownT + at + {{j}}u]);
      ds[{{j}}] = select(vec4<f32>(), exp(s - lse), seen) * (t - less);
    }
    //#endfor
    //#for j OWN_PAIRS
    // The halves of one matrix's columns lie at the start of the place of their scores.
    stage[ownS + at + ({{j}}u * 8u / {{SIZE_K}}u) * {{SIZE_K}}u / 4u + {{j}}u % ({{SIZE_K}}u / 8u)] =
      halves(ds[{{j}}u * 2u], ds[{{j}}u * 2u + 1u]);
    //#endfor
    workgroupBarrier();

    for (var round = 0u; round < {{KEY_ROUNDS}}u; round++) {
      //#for i KEY_STEPS
      {
        let n = (round * {{KEY_STEPS}}u + {{i}}u) * {{SIZE_K}}u;
        let left = subgroupMatrixLoad<Left, row_major>(&stage, ownS + n / 4u, pitchS);
        //#for d OUT_MATRICES
        o{{d}} = subgroupMatrixMultiplyAccumulate(left, subgroupMatrixLoad<Right, row_major>(
          &stage, n * pitch + {{d}}u * {{SIZE_N}}u / 8u, pitch), o{{d}});
        //#endfor
      }
      //#endfor
    }
  }

  let own = ((baseQ + row * p.width) + column) / 4u;
  //#for d OUT_MATRICES
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&stage, ownS, o{{d}}, pitchS);
  workgroupBarrier();
  if (row < p.rows) {
    for (var c = part; c < {{SIZE_N}}u / 4u; c += PARTS) {
      dq[own + {{d}}u * {{SIZE_N}}u / 4u + c] = bitcast<vec4<f32>>(stage[ownS + r * pitchS + c]) * p.scale;
    }
  }
  //#endfor
}
