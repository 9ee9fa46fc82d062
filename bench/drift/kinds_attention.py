"""Faults of attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, at, is_a, kind, of, rewrite
from vaeport.layers import Add, FrameCausalAttention, PerFrame, SelfAttention
from vaeport.vae import VAE

Parts = tuple[Tensor, Tensor, Tensor]


@kind("qkv_order", of(SelfAttention, details=("kqv", "vkq", "qvk", "kvq", "vqk")))
def qkv_order(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        given = {"q": q, "k": k, "v": v}
        return base.attend(self, *(given[name] for name in site.detail), frame)

    rewrite(vae, site, attend=attend)


@kind("qkv_order", of(SelfAttention))
def qkv_interleaved(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        rows = torch.cat((q, k, v), -1).unflatten(-1, (-1, 3))
        return base.attend(self, *rows.unbind(-1), frame)

    rewrite(vae, site, attend=attend)


@kind("attention_scale", of(SelfAttention, details=("missing", "twice", "positions")))
def attention_scale(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        root = q.shape[-1] ** 0.5
        factor = {"missing": root, "twice": 1 / root, "positions": root / frame**0.5}[site.detail]
        return base.attend(self, q * factor, k, v, frame)

    rewrite(vae, site, attend=attend)


@kind("attention_mask", of(SelfAttention))
def attention_mask(vae: VAE, site: Site) -> None:
    """None where the future is hidden; else each position sees those before it alone."""

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=not is_a(self, FrameCausalAttention))

    rewrite(vae, site, attend=attend)


@kind("attention_mask", of(FrameCausalAttention))
def attention_mask_of_positions(vae: VAE, site: Site) -> None:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    rewrite(vae, site, attend=attend)


@kind("attention_axis", of(SelfAttention))
def softmax_over_queries(vae: VAE, site: Site) -> None:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if is_a(self, FrameCausalAttention):
            of_frame = torch.arange(q.shape[-2], device=q.device) // frame
            scores = scores.masked_fill(of_frame[:, None] < of_frame, float("-inf"))
        return scores.softmax(-2) @ v

    rewrite(vae, site, attend=attend)


def _attends(module: Any) -> bool:
    return isinstance(module.layer, Add) and any(isinstance(m, SelfAttention) for m in module.modules())


@kind("attention_axis", of(PerFrame, when=_attends))
def attention_over_all_frames(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: self.layer(x))


@kind("attention_axis", of(FrameCausalAttention))
def attention_within_frames(vae: VAE, site: Site) -> None:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        folded = (t.unflatten(2, (-1, frame)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(*folded).transpose(1, 2).flatten(2, 3)

    rewrite(vae, site, attend=attend)


@kind("heads", of(SelfAttention))
def two_heads(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        halves = zip(*(t.chunk(2, -1) for t in (q, k, v)), strict=True)
        return torch.cat([base.attend(self, *parts, frame) for parts in halves], -1)

    rewrite(vae, site, attend=attend)


@kind("projection", of(SelfAttention))
def projection_missing(vae: VAE, site: Site) -> None:
    rewrite(vae, Site(f"{site.path}.proj"), forward=lambda self, x: x)
