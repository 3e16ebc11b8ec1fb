// Attention in the flash form (Dao et al. 2022): out[b, i, h] = sum_j softmax_j(scale * q_i . k_j + bias[h, i, j]) v_j,
// and the row's log-sum-exp [B, H, Lq] for the backward pass. Nothing of size Lq * Lk is stored: a running maximum `top`
// and sum `total` (f32) rescale the output of the row as keys arrive.
// Tensors [B, L, H * hd]: head h is the column block h. Key j is allowed for row i where j <= i (CAUSAL) and the bias is
// above MASKED; a row without an allowed key gives zeros.
// Bindings: 1 q, 2 k, 3 v{{BIAS_NOTE}}, then out, log_sum_exp.
// Mapping: a workgroup owns ROWS query rows of one (b, h); an invocation keeps a row, or 1 / PARTS of its columns, in
// registers. Keys and values are read at addresses that all rows share, KEYS at a time.
//#if SPLIT
// A row lies in PARTS invocations: scores are added up through workgroup memory, always in the same order.
//#endif
//#if STAGED
// TILE keys and values at a time are staged in workgroup memory.
//#endif
// Grid: groups * heads * batch workgroups, folded into y with p.fold a row. Limits: hd a multiple of 4.

struct Params { batch : u32, heads : u32, rows : u32, keys : u32, groups : u32, fold : u32, scale : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> q : array<vec4<{{Q}}>>;
@group(0) @binding(2) var<storage, read_write> k : array<vec4<{{K}}>>;
@group(0) @binding(3) var<storage, read_write> v : array<vec4<{{V}}>>;
//#if BIAS
@group(0) @binding(4) var<storage, read_write> bias : array<{{BIAS_TYPE}}>;
//#endif
@group(0) @binding({{OUT_AT}}) var<storage, read_write> out : array<vec4<{{OUT}}>>;
@group(0) @binding({{LSE_AT}}) var<storage, read_write> log_sum_exp : array<f32>;

const ROWS = {{ROWS}}u;
const PARTS = {{PARTS}}u;
const OWN = {{OWN}}u; // vec4s of the head that one invocation keeps
const HEAD = OWN * PARTS; // vec4s of a head
const LOWEST = -3.0e38;
const MASKED = -1.0e38;
//#if SPLIT
var<workgroup> partial : array<f32, {{PARTIALS}}>;
//#endif
//#if STAGED
const TILE = {{TILE}}u;
var<workgroup> k_tile : array<vec4<{{K}}>, {{TILE_SIZE}}>;
var<workgroup> v_tile : array<vec4<{{V}}>, {{TILE_SIZE}}>;
//#endif

@compute @workgroup_size({{INVOCATIONS}})
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let g = group.x + group.y * p.fold;
  if (g >= p.groups * p.heads * p.batch) { return; }
  let h = (g / p.groups) % p.heads;
  let b = g / (p.groups * p.heads);
  let first = (g % p.groups) * ROWS;
//#if SPLIT
  let r = lane % ROWS;
  let part = (lane / ROWS) * OWN;
//#else
  let r = lane;
  let part = 0u;
//#endif
  let inside = first + r < p.rows;
  let row = min(first + r, p.rows - 1u);
  let stride = p.heads * HEAD;
  let own = (b * p.rows + row) * stride + h * HEAD + part;
  let shared_ = b * p.keys * stride + h * HEAD;
//#for i OWN
  let q{{i}} = vec4<f32>(q[own + {{i}}u]) * p.scale;
  var o{{i}} = vec4<f32>(0.0);
//#endfor
  var top = LOWEST;
  var total = 0.0;
//#if CAUSAL
  let last = min(p.keys, first + ROWS);
//#else
  let last = p.keys;
//#endif
//#if BIAS
  let bias_row = (h * p.rows + row) * p.keys;
//#endif
//#if STAGED
  for (var tile = 0u; tile < last; tile += TILE) {
    workgroupBarrier();
    for (var at = lane; at < TILE * HEAD; at += {{INVOCATIONS}}u) {
      let from_ = shared_ + min(tile + at / HEAD, p.keys - 1u) * stride + at % HEAD;
      k_tile[at] = k[from_];
      v_tile[at] = v[from_];
    }
    workgroupBarrier();
  for (var start = tile; start < min(tile + TILE, last); start += {{KEYS}}u) {
//#else
  for (var start = 0u; start < last; start += {{KEYS}}u) {
//#endif
//#for j KEYS
//#if STAGED
    let at{{j}} = (start - tile + {{j}}u) * HEAD + part;
//#else
    let at{{j}} = shared_ + min(start + {{j}}u, p.keys - 1u) * stride + part;
//#endif
    var s{{j}} = 0.0;
//#endfor
//#for i OWN
//#for j KEYS
    s{{j}} += dot(q{{i}}, vec4<f32>({{KS}}[at{{j}} + {{i}}u]));
//#endfor
//#endfor
//#if SPLIT
//#for j KEYS
    partial[{{j}}u * {{INVOCATIONS}}u + lane] = s{{j}};
//#endfor
    workgroupBarrier();
//#for j KEYS
    s{{j}} = 0.0;
    for (var t = r; t < {{INVOCATIONS}}u; t += ROWS) { s{{j}} += partial[{{j}}u * {{INVOCATIONS}}u + t]; }
//#endfor
    workgroupBarrier();
//#endif
    var highest = top;
//#for j KEYS
    let key{{j}} = start + {{j}}u;
//#if BIAS
    s{{j}} += f32(bias[bias_row + min(key{{j}}, p.keys - 1u)]);
//#endif
//#if CAUSAL
    s{{j}} = select(LOWEST, s{{j}}, key{{j}} < p.keys && key{{j}} <= row);
//#else
    s{{j}} = select(LOWEST, s{{j}}, key{{j}} < p.keys);
//#endif
    highest = max(highest, s{{j}});
//#endfor
    let shrink = exp(top - highest);
    top = highest;
    total *= shrink;
//#for j KEYS
    let w{{j}} = select(0.0, exp(s{{j}} - top), s{{j}} > MASKED);
    total += w{{j}};
//#endfor
//#for i OWN
    o{{i}} *= shrink;
//#for j KEYS
    o{{i}} = fma(vec4<f32>(w{{j}}), vec4<f32>({{VS}}[at{{j}} + {{i}}u]), o{{i}});
//#endfor
//#endfor
  }
//#if STAGED
  }
//#endif
  if (inside) {
    let found = total > 0.0;
    let weight = select(0.0, 1.0 / total, found);
//#for i OWN
    out[own + {{i}}u] = vec4<{{OUT}}>(o{{i}} * weight);
//#endfor
    if (part == 0u) { log_sum_exp[(b * p.heads + h) * p.rows + row] = select(0.0, top + log(total), found); }
  }
}
