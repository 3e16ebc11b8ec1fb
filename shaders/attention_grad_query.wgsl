// Gradient of attention with respect to the queries: with w_ij = exp(s_ij - log_sum_exp_i) computed again,
// ds_ij = w_ij * (dout_i . v_j - delta_i) and dq_i = scale * sum_j ds_ij k_j (Dao et al. 2022, section B.4).
// Tensors [B, L, H * hd]; log_sum_exp and delta [B, H, Lq].
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp, 6 delta{{BIAS_NOTE}}, then dq.
// Mapping: a workgroup owns ROWS query rows of one (b, h); an invocation keeps q, dout and dq of a row, or of 1 / PARTS
// of its columns, in registers. Keys and values are read at addresses that all rows share, KEYS at a time.
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
@group(0) @binding(4) var<storage, read_write> dout : array<vec4<{{DOUT}}>>;
@group(0) @binding(5) var<storage, read_write> log_sum_exp : array<f32>;
@group(0) @binding(6) var<storage, read_write> delta : array<f32>;
//#if BIAS
@group(0) @binding(7) var<storage, read_write> bias : array<{{BIAS_TYPE}}>;
//#endif
@group(0) @binding({{DQ_AT}}) var<storage, read_write> dq : array<vec4<f32>>;

const ROWS = {{ROWS}}u;
const PARTS = {{PARTS}}u;
const OWN = {{OWN}}u; // vec4s of the head that one invocation keeps
const HEAD = OWN * PARTS; // vec4s of a head
const MASKED = -1.0e38;
//#if SPLIT
var<workgroup> partial : array<vec2<f32>, {{PARTIALS}}>;
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
  let level = log_sum_exp[(b * p.heads + h) * p.rows + row];
  let less = delta[(b * p.heads + h) * p.rows + row];
//#for i OWN
  let q{{i}} = vec4<f32>(q[own + {{i}}u]) * p.scale;
  let d{{i}} = vec4<f32>(dout[own + {{i}}u]);
  var o{{i}} = vec4<f32>(0.0);
//#endfor
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
    var t{{j}} = 0.0;
//#endfor
//#for i OWN
//#for j KEYS
    s{{j}} += dot(q{{i}}, vec4<f32>({{KS}}[at{{j}} + {{i}}u]));
    t{{j}} += dot(d{{i}}, vec4<f32>({{VS}}[at{{j}} + {{i}}u]));
//#endfor
//#endfor
//#if SPLIT
//#for j KEYS
    partial[{{j}}u * {{INVOCATIONS}}u + lane] = vec2<f32>(s{{j}}, t{{j}});
//#endfor
    workgroupBarrier();
//#for j KEYS
    var both{{j}} = vec2<f32>(0.0);
    for (var t = r; t < {{INVOCATIONS}}u; t += ROWS) { both{{j}} += partial[{{j}}u * {{INVOCATIONS}}u + t]; }
    s{{j}} = both{{j}}.x;
    t{{j}} = both{{j}}.y;
//#endfor
    workgroupBarrier();
//#endif
//#for j KEYS
    let key{{j}} = start + {{j}}u;
//#if BIAS
    s{{j}} += f32(bias[bias_row + min(key{{j}}, p.keys - 1u)]);
//#endif
//#if CAUSAL
    let allowed{{j}} = key{{j}} < p.keys && key{{j}} <= row && s{{j}} > MASKED;
//#else
    let allowed{{j}} = key{{j}} < p.keys && s{{j}} > MASKED;
//#endif
    let w{{j}} = select(0.0, exp(s{{j}} - level), allowed{{j}}) * (t{{j}} - less);
//#endfor
//#for i OWN
//#for j KEYS
    o{{i}} = fma(vec4<f32>(w{{j}}), vec4<f32>({{KS}}[at{{j}} + {{i}}u]), o{{i}});
//#endfor
//#endfor
  }
//#if STAGED
  }
//#endif
  if (inside) {
//#for i OWN
    dq[own + {{i}}u] = o{{i}} * p.scale;
//#endfor
  }
}
