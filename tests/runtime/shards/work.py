"""What the processes of a pool do: functions of `Ranks`, which they get by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.layers.laws import Cutting, difference, filled, normal, streamed
from tests.narrow import native
from vaeport.kernels.rewrite import faster
from vaeport.layers import TIME, Conv, Layer
from vaeport.layers.attention import FrameCausalAttention, SelfAttention
from vaeport.layers.combine import Add, Chain, PerFrame
from vaeport.layers.conv_transpose import WeightNormConvTranspose1d
from vaeport.layers.layer import HEIGHT, Barrier, Identity
from vaeport.layers.norm import GroupNorm
from vaeport.layers.pad import Pad
from vaeport.layers.resample import NearestUpsample
from vaeport.runtime.parallel import ParallelTiledVAE
from vaeport.runtime.shards import Ranks, Stripe, decode_sharded, encode_sharded, partition, sharded


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decode(ranks: Ranks, name: str, shape: tuple[int, ...], axis: int | None, seed: int) -> tuple[float, float]:
    """rms difference from the whole, and rms of the whole, on rank 0; other ranks have other generators."""
    vae, z = native(name), normal(*shape, seed=seed)
    found = decode_sharded(vae, z, ranks, axis=axis, generator=noise(seed + ranks.rank))
    if ranks.rank:
        assert found is None
        return 0.0, 0.0
    assert found is not None
    return compared(found, vae.decode(z, generator=noise(seed)).sample)


def encode(ranks: Ranks, name: str, shape: tuple[int, ...], axis: int | None, seed: int) -> tuple[float, float]:
    """As `decode`, of the moments; all ranks have them."""
    vae, x = native(name), normal(*shape, seed=seed).tanh()
    found = encode_sharded(vae, x, ranks, axis=axis, gather="all")
    assert found is not None
    return compared(found.parameters, vae.encode(x).latent_dist.parameters) if ranks.rank == 0 else (0.0, 0.0)


def fast_decode(ranks: Ranks, name: str, shape: tuple[int, ...], axis: int | None) -> tuple[float, float]:
    """As `decode`, by the layers that run on a GPU."""
    vae, z = native(name), normal(*shape)
    assert vae.decoder is not None
    twin = copy(vae)
    twin._modules = {**vae._modules, "decoder": faster(vae.decoder, "hopper")}
    found = decode_sharded(twin, z, ranks, axis=axis, gather="all", generator=noise(ranks.rank))
    assert found is not None
    return compared(found, vae.decode(z, generator=noise(0)).sample)


def planned(ranks: Ranks, name: str, shape: tuple[int, ...], budget: int | str) -> tuple[float, float, str]:
    """`ParallelTiledVAE` on all ranks: rms differences of a decode and of the encode of what came out; the plan."""
    vae, z = native(name), normal(*shape)
    ours = ParallelTiledVAE(vae, budget=budget, ranks=ranks)
    y, whole = ours.decode(z, generator=noise(1)).sample, vae.decode(z, generator=noise(1)).sample
    x = whole.clamp(-1, 1)
    moments = ours.encode(x).latent_dist.parameters
    plan = ours.plan(shape)
    assert plan.ranks == ranks.size
    return difference(y, whole), difference(moments, vae.encode(x).latent_dist.parameters), plan.why


def compared(found: Tensor, whole: Tensor) -> tuple[float, float]:
    assert found.dtype == whole.dtype
    return difference(found, whole), float(whole.square().mean().sqrt())


LAYERS: dict[str, Callable[[], Layer]] = {
    "wide": lambda: Conv(3, 4, (1, 3), dilation=(1, 9), pad=((0, 0), (9, 9))),
    "strided": lambda: Conv(3, 4, (4, 5), stride=(1, 3), pad=((1, 1), (1, 2))),
    "sparse": lambda: Conv(3, 4, (1, 1), stride=(1, 2)),
    "mirrored": lambda: Chain(Pad("reflect", ((1, 1), (2, 2))), Conv(3, 4, (3, 5))),
    "edge": lambda: Pad("reflect", ((0, 0), (1, 1))),
    "repeated": lambda: Chain(Pad("replicate", ((1, 1), (3, 0))), Conv(3, 3, (3, 4)), NearestUpsample(3)),
    "residual": lambda: Add(Chain(Conv(3, 3, (1, 7), pad=((0, 0), (3, 3))), GroupNorm(3, 1)), Identity()),
    "attention": lambda: Chain(NearestUpsample(2), SelfAttention(3), Conv(3, 2, (3, 3), pad=((1, 1), (1, 1)))),
    "transposed": lambda: WeightNormConvTranspose1d(3, 2, 7, stride=3, crop=2),
}


def layer(ranks: Ranks, kind: str, n: int) -> tuple[float, float]:
    """A layer along the last axis, joined on rank 0."""
    whole = filled(LAYERS[kind]())
    x = normal(2, 3, n) if kind == "transposed" else normal(2, 3, 4, n)
    part, owned = sharded(whole, n, -1, ranks), partition(whole, n, -1, ranks)
    start, stop = owned.stripe(n, ranks.rank)
    mine = part(x[..., start:stop])
    assert mine.shape[-1] == part.length(stop - start, -1)
    found = torch.cat(ranks.agree(mine), -1)
    return compared(found, whole(x))


VIDEO: dict[str, Callable[[], Layer]] = {
    "causal": lambda: Chain(
        Conv(2, 3, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1))),
        PerFrame(Chain(GroupNorm(3, 1), SelfAttention(3))),
        Conv(3, 2, (3, 5, 3), stride=(2, 1, 1), pad=((1, 1), (2, 2), (1, 1))),
    ),
    "whole": lambda: Chain(Conv(2, 4, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1))), FrameCausalAttention(4)),
}


def in_time(ranks: Ranks, kind: str, rows: int, sizes: tuple[int, ...]) -> tuple[float, float]:
    """A video layer sharded along height and streamed in time, in pieces of these sizes."""
    whole = filled(VIDEO[kind]())
    x = normal(2, 2, sum(sizes), rows, 5)
    start, stop = partition(whole, rows, HEIGHT, ranks).stripe(rows, ranks.rank)
    part = sharded(whole, rows, HEIGHT, ranks)
    mine = streamed(part, x[:, :, :, start:stop], TIME, Cutting(sizes, flush=True))
    assert mine is not None
    return compared(torch.cat(ranks.agree(mine), HEIGHT), whole(x))


class Halving(Barrier):
    """Neither local nor as long as its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]

    def length(self, n: int, axis: int) -> int:
        return (n + 1) // 2


def halving(ranks: Ranks) -> None:
    sharded(Chain(Halving()), 8, -1, ranks)


def alike(ranks: Ranks, shapes: dict[int, tuple[int, ...]], axes: dict[int, int]) -> None:
    """A call that differs on some ranks."""
    decode_sharded(native("kl"), normal(*shapes.get(ranks.rank, (1, 4, 8, 8))), ranks, axis=axes.get(ranks.rank))


def kept(ranks: Ranks, gather: Any) -> tuple[list[tuple[int, int, int, int]], Any]:
    """Where the parts lie that a streamed decode hands over, and whether they make up what it returns."""
    vae, z = native("wan"), normal(1, 4, 3, 5, 3)
    parts: list[Stripe] = []
    y = decode_sharded(vae, z, ranks, gather=gather, on_stripe=parts.append)
    whole = vae.decode(z).sample
    for part in parts:
        wanted = whole.narrow(part.axis, part.start, part.tensor.shape[part.axis])
        assert difference(part.tensor, wanted.narrow(TIME, part.frame, part.tensor.shape[TIME])) <= 1e-12
    places = [(part.rank, part.axis, part.start, part.frame) for part in parts]
    return places, None if y is None else tuple(y.shape)


def noted(ranks: Ranks) -> None:
    """Nothing but that all are here."""
    ranks.barrier()


def broken(ranks: Ranks, who: int, how: str, folder: Path) -> None:
    """A decode in which one rank fails, dies or stops after its first part."""
    vae, z = native("wan"), normal(1, 4, 6, 8, 4)

    def on_stripe(part: Stripe) -> None:
        (folder / f"{part.rank}-{part.frame}").touch()
        if ranks.rank != who:
            return
        if how == "fails":
            raise OSError("the disk is full")
        if how == "dies":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGSTOP)

    decode_sharded(vae, z, ranks, on_stripe=on_stripe)
