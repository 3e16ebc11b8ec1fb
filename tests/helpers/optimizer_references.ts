// One step of every optimizer in double precision, written from the papers' formulas tensor by tensor; the references of
// the kernels, and themselves compared with torch, transformers and prodigyopt to twelve digits. Gradients arrive clipped.

import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import type { Shape } from "../../src/tensor/shape.ts";

export interface ReferenceTensor {
  shape: Shape;
  p: Float64Array;
  weightDecay: number;
  /** Factor on the rate. */
  rateFactor: number;
}

export interface Reference {
  /** Changes the tensors; `t` counts from 1. */
  step(gradients: readonly Float64Array[], rate: number, t: number): void;
  /** Prodigy's estimate. */
  d?: number;
}

export function referenceOf(settings: OptimizerSettings, tensors: readonly ReferenceTensor[]): Reference {
  switch (settings.kind) {
    case "sgd":
      return sgd(settings, tensors);
    case "lion":
      return lion(settings, tensors);
    case "prodigy":
      return new ProdigyReference(settings, tensors);
    case "adafactor":
      return adafactor(settings, tensors);
    default:
      return adamw(settings, tensors);
  }
}

const zeros = (tensors: readonly ReferenceTensor[]) => tensors.map(({ p }) => new Float64Array(p.length));

function sgd(settings: OptimizerSettings, tensors: readonly ReferenceTensor[]): Reference {
  const momentum = zeros(tensors);
  return {
    step(gradients, rate) {
      tensors.forEach(({ p, weightDecay, rateFactor }, k) => {
        const m = momentum[k]!;
        for (let i = 0; i < p.length; i++) {
          m[i] = (settings.momentum ?? 0) * m[i]! + gradients[k]![i]! + weightDecay * p[i]!;
          p[i]! -= rate * rateFactor * m[i]!;
        }
      });
    },
  };
}

function lion({ beta1, beta2 }: OptimizerSettings, tensors: readonly ReferenceTensor[]): Reference {
  const momentum = zeros(tensors);
  return {
    step(gradients, rate) {
      tensors.forEach(({ p, weightDecay, rateFactor }, k) => {
        const [m, own] = [momentum[k]!, rate * rateFactor];
        for (let i = 0; i < p.length; i++) {
          const g = gradients[k]![i]!;
          p[i]! -= own * (weightDecay * p[i]! + Math.sign(beta1 * m[i]! + (1 - beta1) * g));
          m[i] = beta2 * m[i]! + (1 - beta2) * g;
        }
      });
    },
  };
}

function adamw({ beta1, beta2, epsilon }: OptimizerSettings, tensors: readonly ReferenceTensor[]): Reference {
  const [first, second] = [zeros(tensors), zeros(tensors)];
  return {
    step(gradients, rate, t) {
      tensors.forEach(({ p, weightDecay, rateFactor }, k) => {
        const [m, v, own] = [first[k]!, second[k]!, rate * rateFactor];
        for (let i = 0; i < p.length; i++) {
          const g = gradients[k]![i]!;
          m[i] = beta1 * m[i]! + (1 - beta1) * g;
          v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
          const direction = m[i]! / (1 - beta1 ** t) / (Math.sqrt(v[i]! / (1 - beta2 ** t)) + epsilon);
          p[i]! -= own * weightDecay * p[i]! + own * direction;
        }
      });
    },
  };
}

class ProdigyReference implements Reference {
  d: number;
  private largest: number;
  private numerator = 0;
  private k = 0;
  private readonly settings: OptimizerSettings;
  private readonly tensors: readonly ReferenceTensor[];
  private readonly state: { m: Float64Array; v: Float64Array; s: Float64Array; origin: Float64Array }[];

  constructor(settings: OptimizerSettings, tensors: readonly ReferenceTensor[]) {
    this.settings = settings;
    this.tensors = tensors;
    const { d0 = 1e-6, sliceP = 1 } = settings.prodigy ?? {};
    this.d = this.largest = d0;
    this.state = tensors.map(({ p }) => {
      const origin = p.filter((_, i) => i % sliceP === 0);
      const values = () => new Float64Array(p.length);
      return { m: values(), v: values(), s: new Float64Array(origin.length), origin };
    });
  }

  step(given: readonly Float64Array[], rate: number): void {
    const { beta1, beta2, epsilon } = this.settings;
    const o = { d0: 1e-6, dCoef: 1, sliceP: 1, decouple: true, ...defined(this.settings.prodigy ?? {}) };
    const beta3 = o.beta3 ?? Math.sqrt(beta2);
    const { d } = this;
    const moving = this.tensors.map(({ rateFactor }) => rateFactor > 0 && rate > 0);
    const lr = rate * Math.max(...this.tensors.map((x) => x.rateFactor));
    const correction = o.useBiasCorrection ? Math.sqrt(1 - beta2 ** (this.k + 1)) / (1 - beta1 ** (this.k + 1)) : 1;
    const step = d * lr * correction;
    let [delta, denominator] = [0, 0];
    const gradients = this.tensors.map(({ p, weightDecay }, k) =>
      o.decouple ? given[k]! : given[k]!.map((g, i) => g + weightDecay * p[i]!),
    );
    this.tensors.forEach(({ p }, k) => {
      if (!moving[k]) return;
      const [g, { m, v, s, origin }] = [gradients[k]!, this.state[k]!];
      for (let i = 0; i < p.length; i++) {
        m[i] = beta1 * m[i]! + (1 - beta1) * d * g[i]!;
        v[i] = beta2 * v[i]! + (1 - beta2) * d * d * g[i]! * g[i]!;
        if (i % o.sliceP !== 0) continue;
        const j = i / o.sliceP;
        delta += (d / o.d0) * step * g[i]! * (origin[j]! - p[i]!);
        s[j] = beta3 * s[j]! + (d / o.d0) * (o.safeguardWarmup ? d : step) * g[i]!;
        denominator += Math.abs(s[j]!);
      }
    });
    if (denominator === 0) return;
    this.numerator = beta3 * this.numerator + delta;
    const found = (o.dCoef * this.numerator) / denominator;
    if (d === o.d0) this.d = Math.max(d, found);
    this.largest = Math.max(this.largest, found);
    this.d = Math.min(this.largest, this.d * (o.growthRate ?? Number.POSITIVE_INFINITY));
    this.tensors.forEach(({ p, weightDecay }, k) => {
      if (!moving[k]) return;
      const [g, { m, v }] = [gradients[k]!, this.state[k]!];
      for (let i = 0; i < p.length; i++) {
        if (o.decouple) p[i]! -= weightDecay * step * p[i]!;
        const up = beta1 > 0 ? m[i]! : this.d * g[i]!;
        p[i]! -= (step * up) / (Math.sqrt(v[i]!) + this.d * epsilon);
      }
    });
    this.k++;
  }
}

/** An object without the keys whose value is undefined. */
function defined<T extends object>(values: T): T {
  return Object.fromEntries(Object.entries(values).filter(([, v]) => v !== undefined)) as T;
}

const mean = (values: Float64Array, pick: (i: number) => boolean) => {
  let [sum, count] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    if (!pick(i)) continue;
    sum += values[i]!;
    count++;
  }
  return sum / count;
};
const rms = (values: Float64Array) =>
  Math.sqrt(
    mean(
      values.map((x) => x * x),
      () => true,
    ),
  );

function adafactor(settings: OptimizerSettings, tensors: readonly ReferenceTensor[]): Reference {
  const o = {
    scaleParameter: true,
    relativeStep: true,
    decayRate: -0.8,
    clipThreshold: 1,
    ...defined(settings.adafactor ?? {}),
  };
  const [e1, e2] = [o.epsilonSquare ?? 1e-30, o.epsilonScale ?? 1e-3];
  const first = zeros(tensors);
  // Rows, columns and whole second moments all begin at 0 and have a decay of 0 in the first step.
  const rows = zeros(tensors);
  const columns = zeros(tensors);
  return {
    step(gradients, rate, t) {
      const keep = 1 - t ** o.decayRate;
      const relative = Math.min(o.warmupInit ? 1e-6 * t : 1e-2, 1 / Math.sqrt(t));
      tensors.forEach(({ shape, p, weightDecay, rateFactor }, k) => {
        const g = gradients[k]!;
        const squares = g.map((x) => x * x + e1);
        const size = o.scaleParameter ? Math.max(e2, rms(p)) : 1;
        const lr = size * (o.relativeStep ? relative : rate) * rateFactor;
        let update: Float64Array;
        if (shape.length < 2) {
          const v = rows[k]!;
          v.forEach((x, i) => (v[i] = keep * x + (1 - keep) * squares[i]!));
          update = g.map((x, i) => x / Math.sqrt(v[i]!));
        } else {
          const [R, C] = shape.slice(-2) as [number, number];
          const matrices = p.length / (R * C);
          const [r, c] = [rows[k]!, columns[k]!];
          for (let b = 0; b < matrices; b++) {
            const part = squares.subarray(b * R * C, (b + 1) * R * C);
            for (let i = 0; i < R; i++)
              r[b * R + i] = keep * r[b * R + i]! + (1 - keep) * mean(part.subarray(i * C, (i + 1) * C), () => true);
            for (let j = 0; j < C; j++)
              c[b * C + j] = keep * c[b * C + j]! + (1 - keep) * mean(part, (i) => i % C === j);
          }
          update = g.map((x, i) => {
            const b = Math.floor(i / (R * C));
            const average = mean(r.subarray(b * R, (b + 1) * R), () => true);
            return x / Math.sqrt((r[Math.floor(i / C)]! / average) * c[b * C + (i % C)]!);
          });
        }
        const scale = lr / Math.max(1, rms(update) / o.clipThreshold);
        for (let i = 0; i < p.length; i++) {
          let u = scale * update[i]!;
          if (o.beta1 !== null && o.beta1 !== undefined) u = first[k]![i] = o.beta1 * first[k]![i]! + (1 - o.beta1) * u;
          p[i]! -= weightDecay * lr * p[i]! + u;
        }
      });
    },
  };
}
