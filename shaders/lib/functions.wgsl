// Pointwise functions that steps may name (src/tensor/epilogue.ts). All work on f32. A gradient function takes the
// gradient that arrives and what the forward pass saved: `*_grad(dy, x)` multiplies dy with f'(x).
// exp, tanh and erf are kept in the range where every driver is accurate; nothing here tests for NaN.

fn neg(v : f32) -> f32 { return -v; }
fn square(v : f32) -> f32 { return v * v; }
fn square_grad(dy : f32, x : f32) -> f32 { return 2.0 * x * dy; }
fn reciprocal(v : f32) -> f32 { return 1.0 / v; }
fn square_root(v : f32) -> f32 { return sqrt(v); }
fn exponential(v : f32) -> f32 { return exp(v); }
fn logarithm(v : f32) -> f32 { return log(v); }
fn absolute(v : f32) -> f32 { return abs(v); }

fn add(v : f32, o : f32) -> f32 { return v + o; }
fn sub(v : f32, o : f32) -> f32 { return v - o; }
fn rsub(v : f32, o : f32) -> f32 { return o - v; }
fn mul(v : f32, o : f32) -> f32 { return v * o; }
fn div(v : f32, o : f32) -> f32 { return v / o; }
// v * (1 + o): the scale of an adaptive norm.
fn scale_by(v : f32, o : f32) -> f32 { return v + v * o; }
fn multiply_add(v : f32, factor : f32, offset : f32) -> f32 { return v * factor + offset; }
fn clamp_between(v : f32, low : f32, high : f32) -> f32 { return clamp(v, low, high); }
// The gradient passes where the value lies inside the bounds, the bounds included (as in PyTorch).
fn clamp_grad(dy : f32, x : f32, low : f32, high : f32) -> f32 { return select(0.0, dy, x >= low && x <= high); }

fn relu(v : f32) -> f32 { return max(v, 0.0); }
// `y` may be the input or the output of relu: both are positive in the same places.
fn relu_grad(dy : f32, y : f32) -> f32 { return select(0.0, dy, y > 0.0); }

fn sigmoid(v : f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(v, -80.0, 80.0))); }
fn sigmoid_grad(dy : f32, x : f32) -> f32 { let s = sigmoid(x); return dy * s * (1.0 - s); }
fn silu(v : f32) -> f32 { return v * sigmoid(v); }
fn silu_grad(dy : f32, x : f32) -> f32 { let s = sigmoid(x); return dy * s * (1.0 + x * (1.0 - s)); }
fn quick_gelu(v : f32) -> f32 { return v * sigmoid(1.702 * v); }
fn quick_gelu_grad(dy : f32, x : f32) -> f32 {
  let s = sigmoid(1.702 * x);
  return dy * s * (1.0 + 1.702 * x * (1.0 - s));
}

// Beyond 15 the result is 1 to the last bit, and drivers that build tanh from exp overflow.
fn hyperbolic_tangent(v : f32) -> f32 { return tanh(clamp(v, -15.0, 15.0)); }
fn hyperbolic_tangent_grad(dy : f32, x : f32) -> f32 { let t = hyperbolic_tangent(x); return dy * (1.0 - t * t); }

// (1 + tanh(u)) / 2 is sigmoid(2 u), which takes half the time of a tanh and keeps its digits where it is small;
// 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
fn gelu_tanh_gate(x : f32) -> f32 { return sigmoid(x * (1.5957691216057308 + 0.07135481627159574 * x * x)); }
fn gelu_tanh(v : f32) -> f32 { return v * gelu_tanh_gate(v); }
fn gelu_tanh_grad(dy : f32, x : f32) -> f32 {
  // Beyond 10 the gate is closed or open; its slope there must not be multiplied by the cube of a large number.
  let t = clamp(x, -10.0, 10.0);
  let s = gelu_tanh_gate(t);
  return dy * (s + t * s * (1.0 - s) * (1.5957691216057308 + 0.2140644488147872 * t * t));
}

// erf by two polynomials fitted at Chebyshev nodes: x * P(x^2) below 1, 1 - exp(-Q(x)) above; error below 1.4e-7.
fn error_function(x : f32) -> f32 {
  let s = x * x;
  if (s < 1.0) {
    var r = fma(s, -9.667044650996104e-6, 1.1265958892181516e-4);
    r = fma(r, s, -8.484080317430198e-4);
    r = fma(r, s, 5.221031606197357e-3);
    r = fma(r, s, -2.6865430176258087e-2);
    r = fma(r, s, 1.1283782124519348e-1);
    r = fma(r, s, -3.7612637877464294e-1);
    r = fma(r, s, 1.128379225730896);
    return r * x;
  }
  let t = min(abs(x), 4.2);
  var q = fma(t, -1.543060989206424e-6, 4.422245910973288e-5);
  q = fma(q, t, -5.815610638819635e-4);
  q = fma(q, t, 4.689338617026806e-3);
  q = fma(q, t, -2.6224980130791664e-2);
  q = fma(q, t, 1.0974092781543732e-1);
  q = fma(q, t, 6.321802139282227e-1);
  q = fma(q, t, 1.1300294399261475);
  q = fma(q, t, -2.705094520933926e-4);
  return sign(x) * (1.0 - exp(-q));
}
fn gelu_erf(v : f32) -> f32 { return 0.5 * v * (1.0 + error_function(v * 0.7071067811865476)); }
fn gelu_erf_grad(dy : f32, x : f32) -> f32 {
  let cdf = 0.5 * (1.0 + error_function(x * 0.7071067811865476));
  return dy * (cdf + x * 0.3989422804014327 * exp(-0.5 * min(x * x, 160.0)));
}
