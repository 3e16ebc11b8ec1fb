// jax-js in the block benchmark: the same FLUX.1 transformer written with its functions, forward and backward as one
// jit(grad(...)). Every function takes ownership of its arguments, as jax-js asks; `.ref` keeps one for another use.

import { blockUntilReady, defaultDevice, grad, init, jit, nn, numpy as np } from "@jax-js/jax";
import { blockInputs, blockWeights, fingerprint } from "../lib/block_task.ts";
import { provideDawn, serve } from "../lib/child.ts";
import { fluxShapeConfig, rotaryOf } from "../lib/flux_blocks.ts";

const EPS = 1e-6;

/** A view of the flat weights under a prefix; a weight is used once, so `take` gives it away. */
function weightsAt(weights, prefix) {
  return {
    at: (name) => weightsAt(weights, `${prefix}${name}.`),
    take: (name) => weights[prefix + name],
  };
}

const linear = (x, p) => np.matmul(x, p.take("weight").transpose()).add(p.take("bias"));
const layerNorm = (x) => nn.standardize(x, -1, { epsilon: EPS });
const modulated = (x, scale, shift) => layerNorm(x).mul(scale.add(1)).add(shift);
const gelu = (x) => nn.gelu(x, { approximate: true });

/** x [..., hd]. */
function rmsNorm(x, p) {
  const mean = np.mean(np.square(x.ref), -1, { keepdims: true });
  return x.mul(np.reciprocal(np.sqrt(mean.add(EPS)))).mul(p.take("weight"));
}

function modulation(vector, p, parts) {
  const all = linear(vector, p);
  const [batch, width] = all.shape;
  return np.split(all.reshape([batch, 1, width]), parts, -1);
}

/** x [B, L, H, hd]; tables [L, hd / 2]. Neighbouring channels are a pair. */
function rope(x, cosine, sine) {
  const [batch, tokens, heads, size] = x.shape;
  const table = (t) => t.reshape([1, tokens, 1, size / 2, 1]);
  const [even, odd] = np.split(x.reshape([batch, tokens, heads, size / 2, 2]), 2, -1);
  const [c, s] = [table(cosine), table(sine)];
  const first = even.ref.mul(c.ref).sub(odd.ref.mul(s.ref));
  const second = odd.mul(c).add(even.mul(s));
  return np.concatenate([first, second], -1).reshape([batch, tokens, heads, size]);
}

function model(config) {
  const { heads, headSize } = config;
  const split = (x) => x.reshape([x.shape[0], x.shape[1], heads, headSize]);
  const attention = (q, k, v, constants) => {
    const turned = [q, k].map((t) => rope(t, constants.cosine.ref, constants.sine.ref));
    const out = nn.dotProductAttention(turned[0], turned[1], v, { scale: 1 / Math.sqrt(headSize) });
    return out.reshape([out.shape[0], out.shape[1], heads * headSize]);
  };
  const projections = (x, p, names, norms) => {
    const [q, k, v] = names.map((name, i) => split(linear(i < 2 ? x.ref : x, p.at(name))));
    return [rmsNorm(q, p.at(norms[0])), rmsNorm(k, p.at(norms[1])), v];
  };
  const feedForward = (x, p) => linear(gelu(linear(x, p.at("net.0.proj"))), p.at("net.2"));
  const embedder = (x, p) => linear(nn.silu(linear(x, p.at("linear_1"))), p.at("linear_2"));

  function double(image, text, vector, p, constants) {
    const streams = [image, text];
    const mods = [modulation(vector.ref, p.at("norm1.linear"), 6), modulation(vector, p.at("norm1_context.linear"), 6)];
    const normed = streams.map((x, s) => modulated(x.ref, mods[s][1], mods[s][0]));
    const attn = p.at("attn");
    const [qi, ki, vi] = projections(normed[0], attn, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"]);
    const names = ["add_q_proj", "add_k_proj", "add_v_proj"];
    const [qt, kt, vt] = projections(normed[1], attn, names, ["norm_added_q", "norm_added_k"]);
    const join = (a, b) => np.concatenate([a, b], 1);
    const joint = attention(join(qt, qi), join(kt, ki), join(vt, vi), constants);
    const [ot, oi] = np.split(joint, [text.shape[1]], 1);
    return [oi, ot].map((o, s) => {
      const gated = linear(o, attn.at(s === 0 ? "to_out.0" : "to_add_out")).mul(mods[s][2]);
      const attended = streams[s].add(gated);
      const inner = feedForward(modulated(attended.ref, mods[s][4], mods[s][3]), p.at(s === 0 ? "ff" : "ff_context"));
      return attended.add(inner.mul(mods[s][5]));
    });
  }

  function single(x, vector, p, constants) {
    const [shift, scale, gate] = modulation(vector, p.at("norm.linear"), 3);
    const normed = modulated(x.ref, scale, shift);
    const [q, k, v] = projections(normed.ref, p.at("attn"), ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"]);
    const inner = gelu(linear(normed, p.at("proj_mlp")));
    const joined = np.concatenate([attention(q, k, v, constants), inner], -1);
    return x.add(linear(joined, p.at("proj_out")).mul(gate));
  }

  return ({ weights, latents, states, pooled }, constants) => {
    const p = weightsAt(weights, "");
    const embed = p.at("time_text_embed");
    const vector = embedder(constants.time, embed.at("timestep_embedder")).add(
      embedder(pooled, embed.at("text_embedder")),
    );
    const active = nn.silu(vector);
    let image = linear(latents, p.at("x_embedder"));
    let text = linear(states, p.at("context_embedder"));
    for (let i = 0; i < config.doubleBlocks; i++) {
      [image, text] = double(image, text, active.ref, p.at(`transformer_blocks.${i}`), constants);
    }
    const textTokens = text.shape[1];
    let joint = np.concatenate([text, image], 1);
    for (let i = 0; i < config.singleBlocks; i++) {
      joint = single(joint, active.ref, p.at(`single_transformer_blocks.${i}`), constants);
    }
    const [rest, last] = np.split(joint, [textTokens], 1);
    rest.dispose();
    const [scale, shift] = modulation(active, p.at("norm_out.linear"), 2);
    const velocity = linear(modulated(last, scale, shift), p.at("proj_out"));
    constants.cosine.dispose();
    constants.sine.dispose();
    return velocity;
  };
}

/** The same tree with one more reference to every leaf. */
function again(tree) {
  if (tree instanceof np.Array) return tree.ref;
  return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, again(value)]));
}

function leavesOf(tree, prefix = "") {
  if (tree instanceof np.Array) return [[prefix, tree]];
  return Object.entries(tree).flatMap(([key, value]) => leavesOf(value, prefix === "" ? key : `${prefix}.${key}`));
}

await serve({
  name: "jax-js",
  async open() {
    const adapter = await provideDawn();
    const devices = await init("webgpu");
    if (!devices.includes("webgpu")) throw new Error("jax-js did not open WebGPU");
    defaultDevice("webgpu");
    return adapter;
  },
  async prepare(task) {
    const forward = model(fluxShapeConfig(task));
    const array = (values, shape) => np.array(values).reshape(shape);
    const inputs = blockInputs(task);
    const rotary = rotaryOf(task);
    const weights = Object.fromEntries(
      blockWeights(task).map(({ name, shape, values }) => [name, array(values, shape)]),
    );
    const variables = { weights };
    for (const name of ["latents", "states", "pooled"])
      variables[name] = array(inputs[name].values, inputs[name].shape);
    const constants = {
      time: array(inputs.time.values, inputs.time.shape),
      seed: array(inputs.seed.values, inputs.seed.shape),
      cosine: array(rotary.cosine, rotary.shape),
      sine: array(rotary.sine, rotary.shape),
    };
    await blockUntilReady([...leavesOf(variables), ...leavesOf(constants)].map(([, leaf]) => leaf));
    const gradients = jit(grad((v, { seed, ...rest }) => forward(v, rest).mul(seed).sum()));
    return {
      async run(repeats) {
        // Work is sent to the device when somebody waits for it: a result that is disposed of before is never computed.
        let waiting = [];
        for (let i = 0; i < repeats; i++) {
          waiting.push(...leavesOf(gradients(again(variables), again(constants))).map(([, leaf]) => leaf));
          if (i % 4 !== 3 && i < repeats - 1) continue;
          await blockUntilReady(waiting);
          for (const leaf of waiting) leaf.dispose();
          waiting = [];
        }
      },
      async check() {
        const found = {};
        for (const [name, leaf] of leavesOf(gradients(again(variables), again(constants)))) {
          found[name.replace(/^weights\./, "")] = fingerprint(await leaf.data());
        }
        return found;
      },
      close() {
        for (const [, leaf] of [...leavesOf(variables), ...leavesOf(constants)]) leaf.dispose();
      },
    };
  },
});
