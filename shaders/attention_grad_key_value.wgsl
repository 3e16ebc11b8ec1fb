// Gradients of attention with respect to keys and values in one pass: with w_ij = exp(s_ij - log_sum_exp_i) computed
// again, dv_j = sum_i w_ij dout_i and dk_j = scale * sum_i w_ij * (dout_i . v_j - delta_i) q_i (Dao et al. 2022, B.4).
// Tensors [B, L, H * hd]; log_sum_exp and delta [B, H, Lq].
//#if BIAS
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp and delta behind it (a ninth buffer is more than some adapters bind),
// 6 bias [H, Lq, Lk], then dk, dv.
//#else
// Bindings: 1 q, 2 k, 3 v, 4 dout, 5 log_sum_exp, 6 delta, then dk, dv.
//#endif
// Mapping: a workgroup owns ROWS keys of one (b, h); an invocation keeps k, v, dk and dv of a key, or of 1 / PARTS of its
// columns, in registers. Queries and dout are read at addresses that all keys share, KEYS queries at a time.
//#if SPLIT
// A key lies in PARTS invocations: scores are added up through workgroup memory, always in the same order.
//#endif
//#if STAGED
// TILE queries and rows of dout at a time are staged in workgroup memory.
//#endif
// Grid: groups * heads * batch workgroups, folded into y with p.fold a row. Limits: hd a multiple of 4.

struct Params { batch : u32, heads : u32, rows : u32, keys : u32, groups : u32, fold : u32, scale : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> q : array<vec4<{{Q}}>>;
@group(0) @binding(2) var<storage, read_write> k : array<vec4<{{K}}>>;
@group(0) @binding(3) var<storage, read_write> v : array<vec4<{{V}}>>;
@group(0) @binding(4) var<storage, read_write> dout : array<vec4<{{DOUT}}>>;
@group(0) @binding(5) var<storage, read_write> log_sum_exp : array<f32>;
//#if BIAS
@group(0) @binding(6) var<storage, read_write> bias : array<{{BIAS_TYPE}}>;
//#else
@group(0) @binding(6) var<storage, read_write> delta : array<f32>;
//#endif
@group(0) @binding({{DK_AT}}) var<storage, read_write> dk : array<vec4<f32>>;
@group(0) @binding({{DV_AT}}) var<storage, read_write> dv : array<vec4<f32>>;

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
var<workgroup> q_tile : array<vec4<{{Q}}>, {{TILE_SIZE}}>;
var<workgroup> d_tile : array<vec4<{{DOUT}}>, {{TILE_SIZE}}>;
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
  let inside = first + r < p.keys;
  let key = min(first + r, p.keys - 1u);
  let stride = p.heads * HEAD;
  let own = (b * p.keys + key) * stride + h * HEAD + part;
  let shared_ = b * p.rows * stride + h * HEAD;
  let levels = (b * p.heads + h) * p.rows;
//#for i OWN
  let k{{i}} = vec4<f32>(k[own + {{i}}u]) * p.scale;
  let v{{i}} = vec4<f32>(v[own + {{i}}u]);
  var a{{i}} = vec4<f32>(0.0);
  var c{{i}} = vec4<f32>(0.0);
//#endfor
//#if CAUSAL
  // Rows before the first key of this workgroup see none of its keys.
  let begin = first / {{ALIGN}}u * {{ALIGN}}u;
//#else
  let begin = 0u;
//#endif
//#if STAGED
  for (var tile = begin; tile < p.rows; tile += TILE) {
    workgroupBarrier();
    for (var at = lane; at < TILE * HEAD; at += {{INVOCATIONS}}u) {
      let from_ = shared_ + min(tile + at / HEAD, p.rows - 1u) * stride + at % HEAD;
      q_tile[at] = q[from_];
      d_tile[at] = dout[from_];
    }
    workgroupBarrier();
  for (var start = tile; start < min(tile + TILE, p.rows); start += {{KEYS}}u) {
//#else
  for (var start = begin; start < p.rows; start += {{KEYS}}u) {
//#endif
//#for j KEYS
    let row{{j}} = min(start + {{j}}u, p.rows - 1u);
//#if STAGED
    let at{{j}} = (start - tile + {{j}}u) * HEAD + part;
//#else
    let at{{j}} = shared_ + row{{j}} * stride + part;
//#endif
    var s{{j}} = 0.0;
    var t{{j}} = 0.0;
//#endfor
//#for i OWN
//#for j KEYS
    s{{j}} += dot(k{{i}}, vec4<f32>({{QS}}[at{{j}} + {{i}}u]));
    t{{j}} += dot(v{{i}}, vec4<f32>({{DS}}[at{{j}} + {{i}}u]));
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
//#if BIAS
    s{{j}} += f32(bias[(h * p.rows + row{{j}}) * p.keys + key]);
//#endif
//#if CAUSAL
    let allowed{{j}} = start + {{j}}u < p.rows && key <= row{{j}} && s{{j}} > MASKED;
//#else
    let allowed{{j}} = start + {{j}}u < p.rows && s{{j}} > MASKED;
//#endif
    let w{{j}} = select(0.0, exp(s{{j}} - log_sum_exp[levels + row{{j}}]), allowed{{j}});
//#if BIAS
    let u{{j}} = w{{j}} * (t{{j}} - log_sum_exp[p.batch * p.heads * p.rows + levels + row{{j}}]);
//#else
    let u{{j}} = w{{j}} * (t{{j}} - delta[levels + row{{j}}]);
//#endif
//#endfor
//#for i OWN
//#for j KEYS
    a{{i}} = fma(vec4<f32>(u{{j}}), vec4<f32>({{QS}}[at{{j}} + {{i}}u]), a{{i}});
    c{{i}} = fma(vec4<f32>(w{{j}}), vec4<f32>({{DS}}[at{{j}} + {{i}}u]), c{{i}});
//#endfor
//#endfor
  }
//#if STAGED
  }
//#endif
  if (inside) {
//#for i OWN
    dk[own + {{i}}u] = a{{i}} * p.scale;
    dv[own + {{i}}u] = c{{i}};
//#endfor
  }
}
