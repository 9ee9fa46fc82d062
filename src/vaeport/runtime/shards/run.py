"""Encoding and decoding on several ranks, each of which has the whole VAE and works on its stripe."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vaeport.errors import InputError, VaeportError
from vaeport.layers import HEIGHT, SAMPLES, TIME, WIDTH, DiagonalGaussian, SpatialNoise
from vaeport.layers.random import default_generator
from vaeport.runtime.bands import cuts
from vaeport.runtime.plan import Plan
from vaeport.runtime.shards.ranks import Ranks, RefusedError
from vaeport.runtime.shards.tree import partition, sharded
from vaeport.vae import VAE

Gather = Literal["rank0", "all", "none"]


@dataclass(frozen=True)
class Stripe:
    """A finished part of the output: `tensor` [B, C, *axes].

    rank            whose stripe it is
    axis, start     where it begins along the axis that is shared out (negative: HEIGHT, WIDTH or SAMPLES)
    frame           where it begins in time; 0 for images and audio
    """

    tensor: Tensor
    rank: int
    axis: int
    start: int
    frame: int = 0


OnStripe = Callable[[Stripe], Any]


@torch.no_grad()
def decode_sharded(
    vae: VAE,
    z: Tensor,
    ranks: Ranks,
    *,
    axis: int | None = None,
    gather: Gather = "rank0",
    timestep: float | Tensor | None = None,
    generator: torch.Generator | None = None,
    on_stripe: OnStripe | None = None,
    plan: Plan | None = None,
) -> Tensor | None:
    """As `vae.decode(z).sample`, computed by all ranks, which call this alike. No gradients.

    z           the whole latent on every rank; only the own stripe of it is read
    axis        HEIGHT, WIDTH or SAMPLES; None: the longer of height and width
    gather      "rank0": the whole media there, None elsewhere; "all": there too; "none": the own stripe on each
    generator   of noise; that of rank 0 counts, for all ranks
    on_stripe   is called with every part as soon as it is finished, on the rank that made it: of a video that streams,
                piece by piece. What it keeps outlives a rank that dies.
    plan        made for so many ranks, the same on all; None: as the VAE runs by itself

    InputError as for `decode`, and for more ranks than latents along the axis, ranks that were called differently, or
    GPUs of different kinds, on every rank; BlockedError where another rank failed or died.
    """
    with ranks.together():
        axis, twin = _shared(vae, "decoder", z, axis, ranks, {"gather": gather, "timestep": str(timestep)})
        owned = partition(vae.decoder_at(timestep), z.shape[axis], axis, ranks)
        if any(isinstance(module, SpatialNoise) for module in twin.modules()):
            generator = _of_rank_0(generator, ranks)
        start, stop = owned.stripe(z.shape[axis], ranks.rank)
        own = z.narrow(axis, start, stop - start)
        shape = vae.contract.decoded_shape(tuple(z.shape))
        given: dict[str, Any] = {"timestep": timestep, "generator": generator}
        begins = owned.stripe(shape[axis], ranks.rank)[0]
        if plan is not None or on_stripe is None or twin.decode_pieces is None:
            if plan is None:
                y = twin.decode(own, **given).sample
            else:
                y = twin._clamped(plan.run(twin.decoder_at(**given), twin._raw(own)))
            if on_stripe is not None:
                on_stripe(Stripe(y, ranks.rank, axis, begins))
        else:
            pieces, frame = [], 0
            own_pieces = (own.narrow(TIME, a, b - a) for a, b in cuts(own.shape[TIME], *twin.decode_pieces))
            for piece in twin.stream_decode(own_pieces, **given):
                pieces.append(piece)
                on_stripe(Stripe(piece, ranks.rank, axis, begins, frame))
                frame += piece.shape[TIME]
            y = torch.cat(pieces, TIME)
        return _gathered(y, owned.stripes(shape[axis]), axis, gather, ranks)


@torch.no_grad()
def encode_sharded(
    vae: VAE, x: Tensor, ranks: Ranks, *, axis: int | None = None, gather: Gather = "rank0", plan: Plan | None = None
) -> DiagonalGaussian | None:
    """As `vae.encode(x).latent_dist`, computed by all ranks, which call this alike. No gradients.

    x           the whole media on every rank; only the own stripe of it is read
    others      as for `decode_sharded`

    InputError as for `encode`, and BlockedError, as for `decode_sharded`.
    """
    with ranks.together():
        axis, twin = _shared(vae, "encoder", x, axis, ranks, {"gather": gather})
        encoder = vae._running("encoder")
        owned = partition(encoder, x.shape[axis], axis, ranks)
        start, stop = owned.stripe(x.shape[axis], ranks.rank)
        own = x.narrow(axis, start, stop - start)
        if plan is None:
            moments = twin.encode(own).latent_dist.parameters
        else:
            assert twin.encoder is not None
            moments = plan.run(twin.encoder, own)
        stripes = owned.stripes(encoder.length(x.shape[axis], axis))
        found = _gathered(moments, stripes, axis, gather, ranks)
        return None if found is None else vae._posterior(found)


def clips(ranks: Ranks, count: int) -> range:
    """Which of `count` clips this rank works on, when there are enough for all: whole clips need no neighbours."""
    return range(count * ranks.rank // ranks.size, count * (ranks.rank + 1) // ranks.size)


def longer_axis(vae: VAE, x: Tensor) -> int:
    """The axis that is shared out unless another is asked for."""
    if vae.contract.modality == "audio":
        return SAMPLES
    return HEIGHT if x.shape[HEIGHT] >= x.shape[WIDTH] else WIDTH


def _shared(
    vae: VAE, half: Literal["encoder", "decoder"], x: Tensor, axis: int | None, ranks: Ranks, told: dict[str, Any]
) -> tuple[int, VAE]:
    """The axis, and a VAE whose half is the own shard; an InputError of one rank is one of all."""
    error: VaeportError | None = None
    try:
        axis, twin = _shard(vae, half, x, axis, ranks)
    except VaeportError as found:
        error = found
    same = {"VAE": type(vae).__name__, "constants": repr(vae.arch), "shape": tuple(x.shape), "type": str(x.dtype)}
    said = ranks.agree((None if error is None else str(error), {**same, "axis": axis, "device": _kind(x), **told}))
    if error is not None:
        raise RefusedError(error)
    for rank, (other, _) in enumerate(said):
        if other is not None:
            raise RefusedError(InputError(f"rank {rank} cannot take part: {other}", where=f"rank {ranks.rank}"))
    for key, expected in said[0][1].items():
        for rank, (_, facts) in enumerate(said):
            if facts[key] != expected:
                what, wanted = f"the ranks do not agree: {key}", f"{expected}, as rank 0"
                fix = "GPUs of one kind only" if key == "device" else "call all ranks alike"
                raise RefusedError(InputError(what, where=f"rank {rank}", expected=wanted, found=facts[key], fix=fix))
    assert axis is not None
    return axis, twin


def _shard(vae: VAE, half: Literal["encoder", "decoder"], x: Tensor, axis: int | None, ranks: Ranks) -> tuple[int, VAE]:
    layer = vae._running(half)
    axes = vae.contract.axes
    if half == "encoder":
        vae._check(x, vae.contract.channels, [(a.name, a.least) for a in axes], vae.half_dtype(half))
        vae._require_legal(axes, x.shape[2:])
    else:
        vae._check(x, vae.contract.latent_channels, [(a.name, 1) for a in axes], vae.half_dtype(half))
    audio = vae.contract.modality == "audio"
    legal = (SAMPLES,) if audio else (HEIGHT, WIDTH)
    axis = longer_axis(vae, x) if axis is None else axis
    if axis not in legal:
        raise InputError("this axis cannot be shared out", expected=f"one of {legal}", found=axis)
    twin = copy(vae)
    twin._modules = dict(vae._modules)
    setattr(twin, half, sharded(layer, x.shape[axis], axis, ranks))
    twin.config = replace(vae.config, precision="exact")  # its half is what runs already
    twin._graphs = None
    if audio:
        twin.encode_pieces = twin.decode_pieces = None  # they lie along the axis that is shared out
    return axis, twin


def _kind(x: Tensor) -> str:
    return torch.cuda.get_device_name(x.device) if x.is_cuda else x.device.type


def _of_rank_0(generator: torch.Generator | None, ranks: Ranks) -> torch.Generator | None:
    """Generators in the same state on all ranks: rank 0's own, and copies of it, so that all draw the same noise."""
    if ranks.size == 1:
        return generator
    own = generator if generator is not None else default_generator(ranks.device)
    device, state = ranks.agree((own.device.type, own.get_state()) if ranks.rank == 0 else None)[0]
    if ranks.rank == 0:
        return generator
    twin = torch.Generator(ranks.device if device == ranks.device.type else device)
    twin.set_state(state)
    return twin


def _gathered(y: Tensor, stripes: list[tuple[int, int]], axis: int, gather: Gather, ranks: Ranks) -> Tensor | None:
    """The stripes as one tensor where it is asked for."""
    if gather == "none" or ranks.size == 1:
        return y
    ranks.finish()
    others = [rank for rank in range(ranks.size) if rank != ranks.rank]
    readers = [0] if gather == "rank0" else list(range(ranks.size))
    reads = ranks.rank in readers
    shape = list(y.shape)
    receives = {}
    for rank in others if reads else ():
        shape[axis] = stripes[rank][1] - stripes[rank][0]
        receives[rank] = tuple(shape)
    sends = {rank: y for rank in readers if rank != ranks.rank}
    parts = ranks.exchange(sends, receives, y).wait()
    if not reads:
        return None
    return torch.cat([parts.get(rank, y) for rank in range(ranks.size)], axis)
