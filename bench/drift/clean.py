"""Correct implementations that are written otherwise: of them `explain` must say nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.kinds_activation import snake
from bench.drift.kinds_condition import embedded
from bench.drift.kinds_norm import NORMS, written
from bench.drift.sites import around, children, derive, method, posterior_class
from vaeport import layers as words
from vaeport.vae import VAE

Variant = Callable[[VAE], int]
"""Changes a VAE in place; how many places it found."""
VARIANTS: dict[str, Variant] = {}


def variant(change: Variant) -> Variant:
    """Enters a function under its name."""
    VARIANTS[change.__name__] = change
    return change


def everywhere(vae: VAE, classes: Any, **methods: Any) -> int:
    """All modules of these classes with these methods."""
    found = list(children(vae, *(classes if isinstance(classes, tuple) else (classes,))))
    for path, _ in found:
        derive(vae, path, **methods)
    return len(found)


def _mask(self: Any, n: int, frame: int, scores: Tensor) -> Tensor:
    if not isinstance(self, words.FrameCausalAttention):
        return scores
    of_frame = torch.arange(n, device=scores.device) // frame
    return scores.masked_fill(of_frame[:, None] < of_frame, float("-inf"))


@variant
def attention_written_out(vae: VAE) -> int:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        scores = torch.einsum("bhqc,bhkc->bhqk", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("bhqk,bhkc->bhqc", _mask(self, q.shape[2], frame, scores).softmax(-1), v)

    return everywhere(vae, words.SelfAttention, attend=attend)


@variant
def attention_in_chunks(vae: VAE) -> int:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        scores = _mask(self, q.shape[2], frame, q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
        return torch.cat([part.softmax(-1) @ v for part in scores.split(3, -2)], -2)

    return everywhere(vae, words.SelfAttention, attend=attend)


@variant
def attention_online(vae: VAE) -> int:
    """Keys block by block, with a running maximum and sum."""

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        scores = _mask(self, q.shape[2], frame, q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
        top = torch.full_like(scores[..., :1], -1e300)
        total, y = torch.zeros_like(top), torch.zeros_like(v)
        for part, values in zip(scores.split(5, -1), v.split(5, -2), strict=True):
            higher = torch.maximum(top, part.amax(-1, keepdim=True))
            weight, shrink = (part - higher).exp(), (top - higher).exp()
            y, total, top = y * shrink + weight @ values, total * shrink + weight.sum(-1, keepdim=True), higher
        return y / total

    return everywhere(vae, words.SelfAttention, attend=attend)


@variant
def attention_of_three_products(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        rows = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        parts = [F.linear(tokens, weight, bias) for weight, bias in rows]
        y = self.proj(self.attend(*parts, prod(x.shape[-2:])))
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)

    return everywhere(vae, words.SelfAttention, forward=forward)


@variant
def norms_written_out(vae: VAE) -> int:
    return everywhere(vae, NORMS, forward=lambda self, x: written(self, x))


@variant
def norms_of_moments(vae: VAE) -> int:
    """Group norms from the mean of squares, less the square of the mean."""

    def forward(self: Any, x: Tensor) -> Tensor:
        groups = x.reshape(x.shape[0], self.groups, -1)
        mean = groups.mean(-1, keepdim=True)
        variance = groups.square().mean(-1, keepdim=True) - mean.square()
        y = ((groups - mean) * (variance + self.eps).rsqrt()).reshape(x.shape)
        view = (-1, *(1,) * (x.dim() - 2))
        return y * self.weight.view(view) + self.bias.view(view)

    return everywhere(vae, words.GroupNorm, forward=forward)


@variant
def norms_gained_first(vae: VAE) -> int:
    """The gain is multiplied into the divisor."""

    def forward(self: Any, x: Tensor) -> Tensor:
        length = x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        gain = self.gain.view(-1, *(1,) * (x.dim() - 2)) * x.shape[1] ** 0.5
        return x * (gain / length)

    return everywhere(vae, words.ChannelRMSNorm, forward=forward)


@variant
def norm_and_activation_fused(vae: VAE) -> int:
    """Each norm in front of an activation does its work; the activation passes on."""
    count = 0
    for path, chain in list(children(vae, words.Chain)):
        names = list(chain._modules)
        for one, other in pairwise(names):
            norm, act = chain._modules[one], chain._modules[other]
            if isinstance(norm, NORMS) and isinstance(act, words.SiLU):
                base = type(norm)
                derive(vae, f"{path}.{one}", forward=lambda self, x, base=base: F.silu(base.forward(self, x)))
                derive(vae, f"{path}.{other}", forward=lambda self, x: x)
                count += 1
    return count


@variant
def activations_written_out(vae: VAE) -> int:
    return everywhere(vae, words.SiLU, forward=lambda self, x: x / (1 + (-x).exp()))


@variant
def snakes_written_out(vae: VAE) -> int:
    return everywhere(vae, words.Snake, forward=lambda self, x: snake(x, self.log_alpha.exp(), self.log_beta.exp()))


@variant
def snakes_of_cosines(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        alpha, beta = (t.exp().unsqueeze(-1) for t in (self.log_alpha, self.log_beta))
        return x + (1 - (2 * alpha * x).cos()) / (2 * (beta + 1e-9))

    return everywhere(vae, words.Snake, forward=forward)


@variant
def embeddings_written_out(vae: VAE) -> int:
    return everywhere(vae, words.TimestepEmbedding, forward=lambda self, t: embedded(self, t))


@variant
def sums_the_other_way_round(vae: VAE) -> int:
    return everywhere(vae, words.Add, forward=lambda self, x: self.main(x) + self.shortcut(x))


@variant
def latents_by_reciprocals(vae: VAE) -> int:
    from bench.drift.kinds_latent import statistics

    def normalize(self: VAE, z: Tensor) -> Tensor:
        shift, scale = (t.to(z).view(-1, *(1,) * (z.dim() - 2)) for t in statistics(self))
        return z * scale - shift * scale

    method(vae, "normalize", normalize)
    return 1


@variant
def std_by_root(vae: VAE) -> int:
    if vae.contract.posterior == "gaussian-softplus":
        return 0
    posterior_class(vae, std=property(lambda self: self.logvar.exp().sqrt()))
    return 1


@variant
def halves_sample_by_sample(vae: VAE) -> int:
    if vae.contract.decode_timestep is not None:
        return 0
    for half in ("encoder", "decoder"):
        one_by_one(vae, half)
    return 2


def one_by_one(vae: VAE, half: str) -> None:
    """A half runs one sample after the other."""
    inner = vae._run.__func__  # type: ignore[attr-defined]

    def _run(self: VAE, name: str, layer: Any, x: Tensor, pieces: Any) -> Tensor:
        if name != half:
            return inner(self, name, layer, x, pieces)
        return torch.cat([inner(self, name, layer, part, pieces) for part in x.split(1)])

    method(vae, "_run", _run)


@variant
def channels_last_inputs(vae: VAE) -> int:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if vae.contract.modality == "audio":
        return 0
    for half in ("encoder", "decoder"):
        around(vae, half, before=lambda x: x.contiguous(memory_format=formats[x.dim()]))
    return 2
