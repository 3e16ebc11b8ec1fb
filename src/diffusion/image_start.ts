// Drawing that starts from a picture instead of from noise alone (SDEdit, Meng et al. 2021), as diffusers' FluxImg2ImgPipeline
// does it: a share of the steps is left out, and the picture's latents get the noise of the first step that remains.

/**
 * The first of `steps` steps that is taken: int(max(steps - min(steps · strength, steps), 0)). At strength 1 all are taken; where
 * it is `steps` none is left.
 * @param strength share of the steps, 0 to 1
 */
export function firstStep(steps: number, strength: number): number {
  return Math.trunc(Math.max(steps - Math.min(steps * strength, steps), 0));
}

/** (1 - sigma) · latents + sigma · noise, as flow matching mixes them, in float32. */
export function noisedLatents(latents: Float32Array, noise: Float32Array, sigma: number): Float32Array {
  if (latents.length !== noise.length)
    throw new Error(`${latents.length} latents and ${noise.length} numbers of noise are of two sizes`);
  const level = Math.fround(sigma);
  const rest = Math.fround(1 - level);
  return latents.map((x, i) => Math.fround(level * noise[i]!) + Math.fround(rest * x));
}
