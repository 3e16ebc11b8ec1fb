// dv = wᵀ dout and dk = scale dsᵀ q in one pass on subgroup matrices, with the weights w = exp(scale q kᵀ - log_sum_exp)
// computed again and ds = w * (dout vᵀ - delta) (Dao et al. 2022, "FlashAttention", section B.4). Factors are f16 (w and
// ds as well), the rest f32.
//
// Tensors [B, L, H * HEAD]: q, k, v, dout f32 or f16, dk and dv f32; log_sum_exp and delta [B, H, Lq] f32.
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp, 6 delta, 7 dk, 8 dv.
// Mapping: a workgroup owns GROUPS / SHARERS * SIZE_M keys of one (b, h); TILE queries and rows of dout at a time are
// staged. SHARERS subgroups have the same SIZE_M keys: each computes its part of the columns (queries) of the transposed
// scores and of v doutᵀ, and its part of the head's columns of dk and dv, so that these and the keys and values fit its
// registers. In between, w and ds of the keys lie in workgroup memory as halves.
// Grid: groups * heads * batch workgroups, folded into y with p.fold a row. Limits: subgroups of exactly LANES;
// HEAD / SHARERS a multiple of SIZE_N, HEAD one of SIZE_K; any Lq, Lk >= 1.
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
@group(0) @binding(7) var<storage, read_write> dk : array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv : array<vec4<f32>>;

alias Left = subgroup_matrix_left<f16, {{SIZE_K}}, {{SIZE_M}}>;
alias Right = subgroup_matrix_right<f16, {{SIZE_N}}, {{SIZE_K}}>;
alias Sums = subgroup_matrix_result<f32, {{SIZE_N}}, {{SIZE_M}}>;

const ROWS = {{GROUPS}}u / {{SHARERS}}u * {{SIZE_M}}u; // keys
const TILE = {{KEYS}}u; // queries
const THREADS = {{THREADS}}u;
// A head in groups of eight halves; staged rows of it, of scores and of weights, in vec4s.
const EIGHTS = {{HEAD}}u / 8u;
const pitch = EIGHTS + 1u;
const pitchS = TILE / 4u + 1u;
const pitchW = TILE / 8u + 1u;
// Queries of a subgroup's scores; lanes that share a key, and the queries of each.
const SHARE = TILE / {{SHARERS}}u;
const PARTS = {{LANES}}u / {{SIZE_M}}u;
const OWN = SHARE / PARTS;
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
  let mine = subgroup / {{SHARERS}}u * {{SIZE_M}}u;
  let sharer = subgroup % {{SHARERS}}u;
  let r = lane % {{SIZE_M}}u;
  let part = lane / {{SIZE_M}}u;
  let key = first + mine + r;
  let ownS = startS + 2u * mine * (pitchS + pitchW);
  let ownT = ownS + {{SIZE_M}}u * pitchS;
  let ownW = ownT + {{SIZE_M}}u * pitchS;
  let ownD = ownW + {{SIZE_M}}u * pitchW;
  let levels = (b * p.heads + h) * p.rows;

  // Keys and values, a stretch of their columns at a time, since all of them are more than workgroup memory holds.
  //#for c STRETCHES
  workgroupBarrier();
  for (var at = thread; at < ROWS * {{STRETCH_EIGHTS}}u; at += THREADS) {
    let across = at / {{STRETCH_EIGHTS}}u;
    let along = at % {{STRETCH_EIGHTS}}u;
    stage[across * ({{STRETCH_EIGHTS}}u + 1u) + along] =
      eightk(baseK, first + across, column + ({{c}}u * {{STRETCH_EIGHTS}}u + along) * 8u);
  }
  workgroupBarrier();
  //#for d STRETCH_MATRICES
  let k{{c}}_{{d}} = subgroupMatrixLoad<Left, row_major>(
    &stage, mine * ({{STRETCH_EIGHTS}}u + 1u) + {{d}}u * {{SIZE_K}}u / 8u, {{STRETCH_EIGHTS}}u + 1u);
  //#endfor
  workgroupBarrier();
  for (var at = thread; at < ROWS * {{STRETCH_EIGHTS}}u; at += THREADS) {
    let across = at / {{STRETCH_EIGHTS}}u;
    let along = at % {{STRETCH_EIGHTS}}u;
    stage[across * ({{STRETCH_EIGHTS}}u + 1u) + along] =
      eightv(baseK, first + across, column + ({{c}}u * {{STRETCH_EIGHTS}}u + along) * 8u);
  }
  workgroupBarrier();
  //#for d STRETCH_MATRICES
  let v{{c}}_{{d}} = subgroupMatrixLoad<Left, row_major>(
    &stage, mine * ({{STRETCH_EIGHTS}}u + 1u) + {{d}}u * {{SIZE_K}}u / 8u, {{STRETCH_EIGHTS}}u + 1u);
  //#endfor
  //#endfor

  //#for d OUT_MATRICES
  var a{{d}} = Sums();
  var c{{d}} = Sums();
  //#endfor

  //#if CAUSAL
  // Queries before the first key of this workgroup see none of its keys.
  let begin = first / TILE * TILE;
  //#else
  let begin = 0u;
  //#endif
  let last = p.rows;
  //#if AHEAD
  // The groups of eight that this invocation fetches, a tile ahead of their use.
  //#for i LOADS
  let across{{i}} = (thread + {{i}}u * THREADS) / EIGHTS;
  let place{{i}} = across{{i}} * pitch + (thread + {{i}}u * THREADS) % EIGHTS;
  let along{{i}} = column + (thread + {{i}}u * THREADS) % EIGHTS * 8u;
  var nextQ{{i}} = eightq(baseQ, begin + across{{i}}, along{{i}});
  var nextD{{i}} = eightdout(baseQ, begin + across{{i}}, along{{i}});
  //#endfor
  //#endif
  for (var start = begin; start < last; start += TILE) {
    workgroupBarrier();
    //#if AHEAD
    //#for i LOADS
    stage[place{{i}}] = nextQ{{i}};
    stage[second + place{{i}}] = nextD{{i}};
    //#endfor
    workgroupBarrier();
    let following = start + TILE;
    if (following < last) {
      //#for i LOADS
      nextQ{{i}} = eightq(baseQ, following + across{{i}}, along{{i}});
      nextD{{i}} = eightdout(baseQ, following + across{{i}}, along{{i}});
      //#endfor
    }
    //#else
    for (var at = thread; at < TILE * EIGHTS; at += THREADS) {
      let across = at / EIGHTS;
      let along = at % EIGHTS;
      stage[across * pitch + along] = eightq(baseQ, start + across, column + along * 8u);
      stage[second + across * pitch + along] = eightdout(baseQ, start + across, column + along * 8u);
    }
    workgroupBarrier();
    //#endif
    for (var round = 0u; round < {{SCORE_ROUNDS}}u; round++) {
      //#for i SCORE_STEPS
      {
        let n = sharer * SHARE + (round * {{SCORE_STEPS}}u + {{i}}u) * {{SIZE_N}}u;
        var s = Sums();
        var t = Sums();
        //#for c STRETCHES
        //#for d STRETCH_MATRICES
        s = subgroupMatrixMultiplyAccumulate(k{{c}}_{{d}}, subgroupMatrixLoad<Right, col_major>(
          &stage, n * pitch + ({{c}}u * {{STRETCH_MATRICES}}u + {{d}}u) * {{SIZE_K}}u / 8u, pitch), s);
        t = subgroupMatrixMultiplyAccumulate(v{{c}}_{{d}}, subgroupMatrixLoad<Right, col_major>(
          &stage, second + n * pitch + ({{c}}u * {{STRETCH_MATRICES}}u + {{d}}u) * {{SIZE_K}}u / 8u, pitch), t);
        //#endfor
        //#endfor
        subgroupMatrixStore<row_major>(&stage, ownS + n / 4u, s, pitchS);
        subgroupMatrixStore<row_major>(&stage, ownT + n / 4u, t, pitchS);
      }
      //#endfor
    }
    workgroupBarrier();

    let from_ = sharer * SHARE + part * OWN;
    var w : array<vec4<f32>, {{OWN_VECTORS}}>;
    var ds : array<vec4<f32>, {{OWN_VECTORS}}>;
    //#for j OWN_VECTORS
    {
      let row = start + from_ + {{j}}u * 4u + vec4<u32>(0u, 1u, 2u, 3u);
      //#if CAUSAL
      let seen = (row < vec4<u32>(p.rows)) & (row >= vec4<u32>(key)) & vec4<bool>(key < p.keys);
      //#else
      let seen = (row < vec4<u32>(p.rows)) & vec4<bool>(key < p.keys);
      //#endif
      let level = levels + min(row, vec4<u32>(p.rows - 1u));
      let lse = vec4<f32>(
        log_sum_exp[level.x], log_sum_exp[level.y], log_sum_exp[level.z], log_sum_exp[level.w]);
      let less = vec4<f32>(delta[level.x], delta[level.y], delta[level.z], delta[level.w]);
      let s = bitcast<vec4<f32>>(stage[ownS + r * pitchS + from_ / 4u + {{j}}u]) * p.scale;
      let t = bitcast<vec4<f32>>(stage[ownT + r * pitchS + from_ / 4u + {{j}}u]);
      w[{{j}}] = select(vec4<f32>(), exp(s - lse), seen);
      ds[{{j}}] = w[{{j}}] * (t - less);
    }
    //#endfor
    //#for j OWN_PAIRS
    stage[ownW + r * pitchW + from_ / 8u + {{j}}u] = halves(w[{{j}}u * 2u], w[{{j}}u * 2u + 1u]);
    stage[ownD + r * pitchW + from_ / 8u + {{j}}u] = halves(ds[{{j}}u * 2u], ds[{{j}}u * 2u + 1u]);
    //#endfor
    workgroupBarrier();

    let part_ = sharer * {{OUT_MATRICES}}u * {{SIZE_N}}u / 8u;
    for (var round = 0u; round < {{KEY_ROUNDS}}u; round++) {
      //#for i KEY_STEPS
      {
        let n = (round * {{KEY_STEPS}}u + {{i}}u) * {{SIZE_K}}u;
        let weights = subgroupMatrixLoad<Left, row_major>(&stage, ownW + n / 8u, pitchW);
        let slopes = subgroupMatrixLoad<Left, row_major>(&stage, ownD + n / 8u, pitchW);
        //#for d OUT_MATRICES
        a{{d}} = subgroupMatrixMultiplyAccumulate(slopes, subgroupMatrixLoad<Right, row_major>(
          &stage, n * pitch + part_ + {{d}}u * {{SIZE_N}}u / 8u, pitch), a{{d}});
        c{{d}} = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<Right, row_major>(
          &stage, second + n * pitch + part_ + {{d}}u * {{SIZE_N}}u / 8u, pitch), c{{d}});
        //#endfor
      }
      //#endfor
    }
  }

  // Each sharer hands its results over through one of the two places of scores.
  let hand = ownS + sharer * {{SIZE_M}}u * pitchS;
  let own = ((baseK + key * p.width) + column) / 4u + sharer * {{OUT_MATRICES}}u * {{SIZE_N}}u / 4u;
  //#for d OUT_MATRICES
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&stage, hand, a{{d}}, pitchS);
  workgroupBarrier();
  if (key < p.keys) {
    for (var c = part; c < {{SIZE_N}}u / 4u; c += PARTS) {
      dk[own + {{d}}u * {{SIZE_N}}u / 4u + c] = bitcast<vec4<f32>>(stage[hand + r * pitchS + c]) * p.scale;
    }
  }
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&stage, hand, c{{d}}, pitchS);
  workgroupBarrier();
  if (key < p.keys) {
    for (var c = part; c < {{SIZE_N}}u / 4u; c += PARTS) {
      dv[own + {{d}}u * {{SIZE_N}}u / 4u + c] = bitcast<vec4<f32>>(stage[hand + r * pitchS + c]);
    }
  }
  //#endfor
}
