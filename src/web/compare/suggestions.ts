// Prompts that show whether a LoRA learnt a style or learnt its pictures by heart: things in the same words that it was not
// trained on.

/**
 * @param trained captions of the run, of which the first gives the words around the thing
 * @param config the run's configuration, whose items are left out
 * @param items of the model's vocabulary; every so many-th is taken, so that kinds of things differ
 */
export function newPrompts(
  trained: readonly string[],
  config: string,
  items: readonly string[],
  most: number,
): string[] {
  const match = /^(.*\bicon of )(.+)$/.exec(trained[0] ?? "");
  if (!match) return [];
  const known = new Set(trained);
  // A stride without a common divisor with the length meets every item in the end.
  const stride = 101;
  const found: string[] = [];
  for (let n = 0; n < items.length && found.length < most; n++) {
    const item = items[(n * stride + 40) % items.length]!;
    const prompt = `${match[1]}${item}`;
    if (!config.includes(JSON.stringify(item)) && !known.has(prompt) && !found.includes(prompt)) found.push(prompt);
  }
  return found;
}
