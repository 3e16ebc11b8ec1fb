// Attention in float64, written from the definition with the whole score matrix, and its gradient rule.

export interface AttentionProblem {
  batch: number;
  rows: number;
  keys: number;
  heads: number;
  headSize: number;
  scale: number;
  causal?: boolean;
  /** [H, Lq, Lk] */
  bias?: ArrayLike<number>;
}

type Numbers = ArrayLike<number>;

/** Weights [B, H, Lq, Lk] of the softmax. */
export function attentionWeights(p: AttentionProblem, q: Numbers, k: Numbers): Float64Array {
  const width = p.heads * p.headSize;
  const weights = new Float64Array(p.batch * p.heads * p.rows * p.keys);
  for (let b = 0; b < p.batch; b++) {
    for (let h = 0; h < p.heads; h++) {
      for (let i = 0; i < p.rows; i++) {
        const at = ((b * p.heads + h) * p.rows + i) * p.keys;
        let top = -Infinity;
        for (let j = 0; j < p.keys; j++) {
          let score = 0;
          for (let d = 0; d < p.headSize; d++) {
            const column = h * p.headSize + d;
            score += q[(b * p.rows + i) * width + column]! * k[(b * p.keys + j) * width + column]!;
          }
          score = score * p.scale + (p.bias?.[(h * p.rows + i) * p.keys + j] ?? 0);
          if (p.causal && j > i) score = -Infinity;
          weights[at + j] = score;
          top = Math.max(top, score);
        }
        let total = 0;
        for (let j = 0; j < p.keys; j++) {
          weights[at + j] = Math.exp(weights[at + j]! - top);
          total += weights[at + j]!;
        }
        for (let j = 0; j < p.keys; j++) weights[at + j]! /= total;
      }
    }
  }
  return weights;
}

/** Calls `visit` for every (weight, first column of row i, first column of key j). */
function eachPair(p: AttentionProblem, visit: (at: number, row: number, key: number) => void): void {
  const width = p.heads * p.headSize;
  let at = 0;
  for (let b = 0; b < p.batch; b++) {
    for (let h = 0; h < p.heads; h++) {
      for (let i = 0; i < p.rows; i++) {
        for (let j = 0; j < p.keys; j++) {
          visit(at++, (b * p.rows + i) * width + h * p.headSize, (b * p.keys + j) * width + h * p.headSize);
        }
      }
    }
  }
}

/** out [B, Lq, H * hd]. */
export function attentionForward(p: AttentionProblem, q: Numbers, k: Numbers, v: Numbers): Float64Array {
  const weights = attentionWeights(p, q, k);
  const out = new Float64Array(p.batch * p.rows * p.heads * p.headSize);
  eachPair(p, (at, row, key) => {
    for (let d = 0; d < p.headSize; d++) out[row + d]! += weights[at]! * v[key + d]!;
  });
  return out;
}

/** Gradients of q, k and v for the gradient `dout` of the result. */
export function attentionBackward(
  p: AttentionProblem,
  q: Numbers,
  k: Numbers,
  v: Numbers,
  dout: Numbers,
): Float64Array[] {
  const weights = attentionWeights(p, q, k);
  const dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length);
  const dv = new Float64Array(v.length);
  const dweights = new Float64Array(weights.length);
  const mean = new Float64Array(weights.length / p.keys);
  eachPair(p, (at, row, key) => {
    let sum = 0;
    for (let d = 0; d < p.headSize; d++) {
      sum += dout[row + d]! * v[key + d]!;
      dv[key + d]! += weights[at]! * dout[row + d]!;
    }
    dweights[at] = sum;
    mean[Math.floor(at / p.keys)]! += weights[at]! * sum;
  });
  eachPair(p, (at, row, key) => {
    const ds = weights[at]! * (dweights[at]! - mean[Math.floor(at / p.keys)]!) * p.scale;
    for (let d = 0; d < p.headSize; d++) {
      dq[row + d]! += ds * k[key + d]!;
      dk[key + d]! += ds * q[row + d]!;
    }
  });
  return [dq, dk, dv];
}
