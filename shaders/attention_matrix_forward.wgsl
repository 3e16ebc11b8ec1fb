// out = softmax(scale q kᵀ) v for every head on subgroup matrices, and each row's log-sum-exp (Dao et al. 2022,
// "FlashAttention"; Dao 2023, "FlashAttention-2"). Factors are f16, scores, sums and results f32.
//
// Tensors [B, L, H * HEAD] in f32 or f16, log_sum_exp [B, H, Lq] f32. Bindings: 1 q, 2 k, 3 v, 4 out, 5 log_sum_exp.
// Mapping: a workgroup owns GROUPS * SIZE_M rows of one (b, h), each of its subgroups SIZE_M of them: their queries and
// their results stay in matrices. KEYS keys and values at a time lie in workgroup memory, in rows of vec4<u32> with one
// vec4 of padding. The scores of a subgroup pass through workgroup memory, because nobody knows which lane of a matrix
// holds what; LANES / SIZE_M lanes share a row there and put the weights, as halves, into the place of the scores.
// Rescaling: results cannot be multiplied row by row inside matrices. So weights are relative to a level that is the
// maximum of the row's first keys, and the level only moves where a later score is more than SLACK above it (a weight is
// e^SLACK at most, which f16 and f32 hold well); then the results pass through workgroup memory once. The idea of moving
// it seldom is that of FlashAttention-4.
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
@group(0) @binding(4) var<storage, read_write> out : array<vec4<{{OUT}}>>;
@group(0) @binding(5) var<storage, read_write> log_sum_exp : array<f32>;

alias Left = subgroup_matrix_left<f16, {{SIZE_K}}, {{SIZE_M}}>;
alias Right = subgroup_matrix_right<f16, {{SIZE_N}}, {{SIZE_K}}>;
alias Sums = subgroup_matrix_result<f32, {{SIZE_N}}, {{SIZE_M}}>;

const LOWEST = -3.0e38;
const SLACK = 8.0;
const ROWS = {{GROUPS}}u * {{SIZE_M}}u;
const KEYS = {{KEYS}}u;
const THREADS = {{THREADS}}u;
// A head in groups of eight halves; staged rows of it and of scores, in vec4s.
const EIGHTS = {{HEAD}}u / 8u;
const pitch = EIGHTS + 1u;
const pitchS = KEYS / 4u + 1u;
// Lanes that share a row, and the keys of each.
const PARTS = {{LANES}}u / {{SIZE_M}}u;
const OWN = KEYS / PARTS;
const startV = {{START_V}}u;
const startS = {{START_S}}u;
var<workgroup> stage : array<vec4<u32>, {{STAGE}}>;
var<workgroup> moved : atomic<u32>;

fn halves(low : vec4<f32>, high : vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(low)), bitcast<vec2<u32>>(vec4<f16>(high)));
}

{{LOAD_Q}}
{{LOAD_K}}
{{LOAD_V}}

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
  let r = lane % {{SIZE_M}}u;
  let part = lane / {{SIZE_M}}u;
  let row = first + subgroup * {{SIZE_M}}u + r;
  let ownS = startS + subgroup * {{SIZE_M}}u * pitchS;

  // The queries, a stretch of their columns at a time, since all of them are more than workgroup memory holds.
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
    &stage, subgroup * {{SIZE_M}}u * ({{STRETCH_EIGHTS}}u + 1u) + {{d}}u * {{SIZE_K}}u / 8u, {{STRETCH_EIGHTS}}u + 1u);
  //#endfor
  //#endfor

  //#for d OUT_MATRICES
  var o{{d}} = Sums();
  //#endfor
  var level = LOWEST;
  var total = 0.0;
  if (thread == 0u) { atomicStore(&moved, 0u); }

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
  var nextK{{i}} = eightk(baseK, across{{i}}, along{{i}});
  var nextV{{i}} = eightv(baseK, across{{i}}, along{{i}});
  //#endfor
  //#endif
  for (var start = 0u; start < last; start += KEYS) {
    workgroupBarrier();
    //#if AHEAD
    //#for i LOADS
    stage[place{{i}}] = nextK{{i}};
    stage[startV + place{{i}}] = nextV{{i}};
    //#endfor
    workgroupBarrier();
    let following = start + KEYS;
    if (following < last) {
      //#for i LOADS
      nextK{{i}} = eightk(baseK, following + across{{i}}, along{{i}});
      nextV{{i}} = eightv(baseK, following + across{{i}}, along{{i}});
      //#endfor
    }
    //#else
    for (var at = thread; at < KEYS * EIGHTS; at += THREADS) {
      let across = at / EIGHTS;
      let along = at % EIGHTS;
      stage[across * pitch + along] = eightk(baseK, start + across, column + along * 8u);
      stage[startV + across * pitch + along] = eightv(baseK, start + across, column + along * 8u);
    }
    workgroupBarrier();
    //#endif
    for (var round = 0u; round < {{SCORE_ROUNDS}}u; round++) {
      //#for i SCORE_STEPS
      {
      let n = (round * {{SCORE_STEPS}}u + {{i}}u) * {{SIZE_N}}u;
      var s = Sums();
      //#for c STRETCHES
      //#for d STRETCH_MATRICES
      s = subgroupMatrixMultiplyAccumulate(q{{c}}_{{d}}, subgroupMatrixLoad<Right, col_major>(
        &stage, n * pitch + ({{c}}u * {{STRETCH_MATRICES}}u + {{d}}u) * {{SIZE_K}}u / 8u, pitch), s);
      //#endfor
      //#endfor
      subgroupMatrixStore<row_major>(&stage, ownS + n / 4u, s, pitchS);
      }
      //#endfor
    }
    workgroupBarrier();

    // The row's scores of this lane: masked, their maximum, the level, the weights.
    let at = ownS + r * pitchS + part * OWN / 4u;
    var highest = LOWEST;
    var s : array<vec4<f32>, {{OWN_VECTORS}}>;
    //#for j OWN_VECTORS
    s[{{j}}] = bitcast<vec4<f32>>(stage[at + {{j}}u]) * p.scale;
    {
      let key = start + part * OWN + {{j}}u * 4u + vec4<u32>(0u, 1u, 2u, 3u);
      //#if CAUSAL
      s[{{j}}] = select(vec4<f32>(LOWEST), s[{{j}}], (key < vec4<u32>(p.keys)) & (key <= vec4<u32>(row)));
      //#else
      s[{{j}}] = select(vec4<f32>(LOWEST), s[{{j}}], key < vec4<u32>(p.keys));
      //#endif
      highest = max(highest, max(max(s[{{j}}].x, s[{{j}}].y), max(s[{{j}}].z, s[{{j}}].w)));
    }
    //#endfor
    //#for i SHUFFLES
    highest = max(highest, subgroupShuffleXor(highest, {{SIZE_M}}u << {{i}}u));
    //#endfor
    var shrink = 1.0;
    if (start == 0u) {
      level = highest;
    } else if (highest > level + SLACK) {
      shrink = exp(level - highest);
      level = highest;
      atomicStore(&moved, 1u);
    }
    var sum = 0.0;
    //#for j OWN_VECTORS
    s[{{j}}] = exp(s[{{j}}] - level);
    sum += s[{{j}}].x + s[{{j}}].y + s[{{j}}].z + s[{{j}}].w;
    //#endfor
    //#for i SHUFFLES
    sum += subgroupShuffleXor(sum, {{SIZE_M}}u << {{i}}u);
    //#endfor
    total = total * shrink + sum;
    //#for j OWN_PAIRS
    // The halves of one matrix's columns lie at the start of the place of their scores.
    stage[at + ({{j}}u * 8u / {{SIZE_K}}u) * {{SIZE_K}}u / 4u + {{j}}u % ({{SIZE_K}}u / 8u)] =
      halves(s[{{j}}u * 2u], s[{{j}}u * 2u + 1u]);
    //#endfor

    if (workgroupUniformLoad(&moved) != 0u) {
      // All keys of this tile were used for scores, so their place is free.
      let place = subgroup * {{SIZE_M}}u * {{SIZE_N}}u / 4u;
      //#for d OUT_MATRICES
      workgroupBarrier();
      subgroupMatrixStore<row_major>(&stage, place, o{{d}}, {{SIZE_N}}u / 4u);
      workgroupBarrier();
      for (var c = part; c < {{SIZE_N}}u / 4u; c += PARTS) {
        let here = place + r * {{SIZE_N}}u / 4u + c;
        stage[here] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(stage[here]) * shrink);
      }
      workgroupBarrier();
      o{{d}} = subgroupMatrixLoad<Sums, row_major>(&stage, place, {{SIZE_N}}u / 4u);
      //#endfor
      if (thread == 0u) { atomicStore(&moved, 0u); }
    }
    for (var round = 0u; round < {{KEY_ROUNDS}}u; round++) {
      //#for i KEY_STEPS
      {
      let n = (round * {{KEY_STEPS}}u + {{i}}u) * {{SIZE_K}}u;
      let weights = subgroupMatrixLoad<Left, row_major>(&stage, ownS + n / 4u, pitchS);
      //#for d OUT_MATRICES
      o{{d}} = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<Right, row_major>(
        &stage, startV + n * pitch + {{d}}u * {{SIZE_N}}u / 8u, pitch), o{{d}});
      //#endfor
      }
      //#endfor
    }
  }

  let weight = 1.0 / total;
  let own = ((baseQ + row * p.width) + column) / 4u;
  //#for d OUT_MATRICES
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&stage, ownS, o{{d}}, pitchS);
  workgroupBarrier();
  if (row < p.rows) {
    for (var c = part; c < {{SIZE_N}}u / 4u; c += PARTS) {
      out[own + {{d}}u * {{SIZE_N}}u / 4u + c] = vec4<{{OUT}}>(bitcast<vec4<f32>>(stage[ownS + r * pitchS + c]) * weight);
    }
  }
  //#endfor
  if (row < p.rows && part == 0u) { log_sum_exp[(b * p.heads + h) * p.rows + row] = level + log(total); }
}
