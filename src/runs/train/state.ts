// What a training run is at a moment, besides its tensors: plain data that goes into every checkpoint and, at the end, into
// the report. Curves are kept whole, so that a continued run draws one line from its first update.

export interface TrainPoint {
  step: number;
  loss: number;
  gradientNorm: number;
  rate: number;
  /** ‖ΔW‖ of the update / ‖W‖. */
  updateRatio: number;
  /** The whole update, and what of it was spent waiting for its pictures. */
  seconds: number;
  stallSeconds: number;
  /** What of it the host worked while it waited neither for pictures nor for the device. */
  hostSeconds: number;
  /** Prodigy's estimate of the distance. */
  d?: number;
  lossScale?: number;
}

export interface ValidationPoint {
  step: number;
  loss: number;
}

export interface SampledStep {
  step: number;
  /** Paths inside the run folder, prompt by prompt and picture by picture. */
  paths: string[];
}

export interface TrainState {
  /** Updates done. */
  step: number;
  points: TrainPoint[];
  validation: ValidationPoint[];
  samples: SampledStep[];
  /** Updates whose gradients were not finite; the weights stayed as they were. */
  refused: number[];
}

export const emptyTrainState = (): TrainState => ({ step: 0, points: [], validation: [], samples: [], refused: [] });
