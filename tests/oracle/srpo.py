"""SRPO's pieces as plain functions, written from docs/training.md and arXiv 2509.06942 (no code of the reference implementation).

Symbols: S = time shift, L = training σ table of N entries (index 0 noisiest), m0 = drawn time index, k = span, b = σ at which noise is
injected, e = σ at which the picture is recovered, x = clean packed latent, ε = the noise the rollout started from.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from clip_openclip import preprocess
from diffusers import FluxPipeline
from tiny import image_ids

POSITIVE = ["Natural-lighting", "Detail", "Detailed", "Real"]
NEGATIVE = ["Concept art", "Painting", "Anime", "Flat", "Oil"]


@dataclass
class Options:
    sampling_steps: int = 25
    schedule_steps: int = 50  # vis_sampling_step
    shift: float = 3.0
    timestep_length: int = 1000
    groundtruth_ratio: float = 0.9
    train_timestep: tuple = (5, 25)
    discount_pos: tuple = (0.1, 0.25)
    discount_inv: tuple = (0.3, 0.01)
    rollout_guidance: float = 1.0
    train_guidance: float = 3.5
    threshold: float = 0.7
    reward: str = "hps"  # hps: raw cosine; pickscore: exp(logit_scale)·cosine / 20
    branches: int = 2  # gradient_accumulation_steps
    learning_rate: float = 5e-6
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.1

    dict = asdict


def shifted(t: torch.Tensor, s: float) -> torch.Tensor:
    return s * t / (1 + (s - 1) * t)


def rollout_sigmas(o: Options, dtype=torch.float32) -> torch.Tensor:
    return shifted(torch.linspace(1, 0, o.sampling_steps + 1, dtype=dtype), o.shift)


def training_table(o: Options, dtype=torch.float32) -> torch.Tensor:
    tau = shifted(torch.linspace(1, 0, o.schedule_steps + 1, dtype=dtype), o.shift)
    a, b = o.train_timestep
    return torch.linspace(tau[a].item(), tau[b].item(), o.timestep_length, dtype=dtype)


def model_time(sigma: torch.Tensor) -> float:
    """What the network is told: 1000σ cut to an integer, over 1000. The arithmetic keeps the exact σ."""
    return int(sigma * 1000) / 1000


def span(o: Options, m0: int) -> int:
    n = o.timestep_length
    k0 = int((1 - o.groundtruth_ratio) * n) + 1
    return min(n - m0, k0, m0)


def plan(o: Options, m0: int, L: torch.Tensor) -> dict[str, dict]:
    """Both branches' own index m, σ b and e, and the discount weight looked up with that m."""
    n, k = o.timestep_length, span(o, m0)
    D = torch.linspace(*o.discount_pos, n, dtype=L.dtype)
    D_inv = torch.linspace(*o.discount_inv, n, dtype=L.dtype)
    m = m0
    denoise = dict(m=m, b_index=n - min(m + k, n), e_index=n - m, discount=D[m].item())
    m = max(m0 - k, 1)
    inversion = dict(m=m, b_index=n - m, e_index=n - min(m + k, n), discount=D_inv[m].item())
    for branch in (denoise, inversion):
        b, e = L[branch["b_index"]], L[branch["e_index"]]
        branch.update(b=b.item(), e=e.item(), timestep=model_time(b), gain=(abs(b - e) / (1 - e)).item(), k=k)
    return {"denoise": denoise, "inversion": inversion}


class World:
    """The frozen parts and the conditioning of one prompt, in one dtype."""

    def __init__(self, transformer, vae, clip, image_size, reward_size, text, pooled, dtype, tiny_vae=False):
        self.transformer, self.vae, self.clip = transformer.to(dtype), vae.to(dtype), clip.to(dtype)
        self.vae.requires_grad_(False)
        self.clip.requires_grad_(False)
        self.h, self.w = image_size
        self.reward_size, self.dtype, self.tiny_vae = reward_size, dtype, tiny_vae
        self.text, self.pooled = text.to(dtype), pooled.to(dtype)

    def velocity(self, z, time: float, guidance: float):
        n = z.shape[0]
        return self.transformer(
            hidden_states=z, timestep=torch.full([n], time, dtype=self.dtype), guidance=torch.full([n], guidance, dtype=self.dtype),
            encoder_hidden_states=self.text.expand(n, -1, -1), pooled_projections=self.pooled.expand(n, -1), txt_ids=torch.zeros(self.text.shape[1], 3, dtype=self.dtype),
            img_ids=image_ids(self.h // 16, self.w // 16).to(self.dtype), return_dict=False)[0]

    def pack(self, latent):
        return FluxPipeline._pack_latents(latent, latent.shape[0], 16, self.h // 8, self.w // 8)

    def decode(self, packed):
        """Packed scaled latent to a picture in 0..1 (not yet clamped, and clamped)."""
        z = FluxPipeline._unpack_latents(packed, self.h, self.w, 8)
        if not self.tiny_vae:
            z = z / self.vae.config.scaling_factor + self.vae.config.shift_factor
        raw = self.vae.decode(z).sample / 2 + 0.5
        return raw, raw.clamp(0, 1)

    def features(self, picture):
        small = preprocess(picture, self.reward_size)
        return small, F.normalize(self.clip.encode_image(small), dim=-1)

    @torch.no_grad()
    def text_features(self, tokens):
        return F.normalize(self.clip.encode_text(tokens), dim=-1)


@torch.no_grad()
def rollout(world: World, o: Options, noise: torch.Tensor) -> list[torch.Tensor]:
    """Euler steps from σ 1 to 0; returns the state before each step and the final one."""
    sigmas = rollout_sigmas(o).to(world.dtype)
    z, states = noise, [noise]
    for i in range(o.sampling_steps):
        v = world.velocity(z, model_time(rollout_sigmas(o)[i]), o.rollout_guidance)
        z = z + (sigmas[i + 1] - sigmas[i]) * v
        states.append(z)
    return states


def micro_step(world: World, o: Options, branch: dict, kind: str, x, noise, t_pos, t_neg, backward=True) -> dict[str, torch.Tensor]:
    """One branch: inject, one velocity, move, recover, decode, score, loss / G, backward."""
    b, e = branch["b"], branch["e"]
    z = (b * noise + (1 - b) * x).detach().requires_grad_(True)
    v = world.velocity(z, branch["timestep"], o.train_guidance)
    moved = z + (e - b) * v
    recovered = (moved - e * noise) / (1 - e)
    raw, picture = world.decode(recovered)
    small, f = world.features(picture)
    first, second = (t_pos, t_neg) if kind == "denoise" else (t_neg, t_pos)
    s_pos, s_neg = (f * t_pos).sum(-1), (f * t_neg).sum(-1)
    reward = (f * ((1 + branch["discount"]) * first - second)).sum(-1)
    if o.reward == "pickscore":
        reward = world.clip.logit_scale.exp() * reward / 20
    loss = F.relu(o.threshold - reward).mean() / o.branches
    for t in (v, recovered, picture, f):
        t.retain_grad()
    if backward:
        loss.backward()
    out = dict(z=z, v=v, moved=moved, recovered=recovered, picture_unclamped=raw, picture=picture, clip_input=small, feature=f, s_pos=s_pos, s_neg=s_neg,
               reward=reward, loss=loss)
    grads = {f"grad.{n}": t.grad for n, t in (("z", z), ("v", v), ("recovered", recovered), ("picture", picture), ("feature", f))}
    return {k: t.detach() for k, t in {**out, **grads}.items()}
