"""Edits of the steps around the networks: the posterior, the latent's normalisation, what is cut before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, overriding
from vaeport.drift.edits.fits import fits
from vaeport.drift.edits.functions import Function
from vaeport.drift.forced import in_one_piece
from vaeport.drift.hidden import copied
from vaeport.layers import DiagonalGaussian, SoftplusGaussian
from vaeport.vae import DecoderOutput, EncoderOutput


def latent_edits(scope: Scope, at: str) -> Iterator[Edit]:
    """For an output that differs though the network before it does not, or for what the network is given."""
    half = "decode" if at in ("before decoder", "unclamped", "decoded") else "encode"
    cause = "crop"
    if scope.found is not None and scope.wanted is not None:
        fitting = list(fits(scope.found, scope.wanted))
        cause = fitting[0][0] if fitting else _kind_of(scope.found, scope.wanted)
        for name, says, function in fitting if not at.startswith("before") and at != "std" else ():
            yield Edit(name, f"{at}: {says}", "", _output(at, function))
    if at in ("mean", "std", "moments"):
        for kind in (DiagonalGaussian, SoftplusGaussian):
            for name, says, change in _MOMENTS:
                yield Edit(name, says.format(kind.__name__), "", _posterior(kind, change))
    if at == "decoded":
        for limits in ((-1.0, 1.0), (0.0, 1.0), None):
            says = "the output should not be clamped" if limits is None else f"the output should be clamped to {limits}"
            yield Edit("clamp", says, "", overriding("decode", _plain_decode(False, True, limits)))
    name = "encoder" if half == "encode" else "decoder"
    for given, returned, says in (
        (True, False, f"the {name} should get its input as it is"),
        (False, True, f"what the {name} gives should be taken as it is"),
        (True, True, f"the {name} should get its input, and its output should be taken, as they are"),
    ):
        plain = _plain_encode if half == "encode" else _plain_decode
        # what is done in front and undone behind changes how the network sees it
        yield Edit("layout" if given and returned else cause, says, "", overriding(half, plain(given, returned)))


def _kind_of(found: Tensor, wanted: Tensor) -> str:
    """What was done to a tensor, judged by its shape and by what is still in it."""
    if found.shape != wanted.shape:
        if sorted(found.shape) == sorted(wanted.shape):
            return "layout"
        same = found.dim() == wanted.dim() and found.shape[:2] == wanted.shape[:2]
        more = same and all(a >= b for a, b in zip(found.shape, wanted.shape, strict=True))
        return "padding amount" if more and torch.equal(found[tuple(map(slice, wanted.shape))], wanted) else "crop"
    for axis in range(2, found.dim()):
        n = found.shape[axis]
        for step in (1, 2, 3, 4):
            ends = (0, step), (step, 0)
            for ours, theirs in ends:
                if n > step and torch.equal(found.narrow(axis, ours, n - step), wanted.narrow(axis, theirs, n - step)):
                    return "crop"
    inner = (..., *(slice(4, -4) if n > 12 else slice(1, -1) if n > 3 else slice(None) for n in found.shape[2:]))
    axes = tuple(range(2, found.dim()))
    moved = (
        torch.equal(torch.roll(found, shift, axes)[inner], wanted[inner])
        for shift in ((1,) * len(axes), (-1,) * len(axes), (0, 1, 1)[-len(axes) :])
    )
    return "crop" if any(moved) else "input"


def normalisation_edits(scope: Scope, mean: Tensor | None) -> Iterator[Edit]:
    """For `normalized` alone: the affine map that the reference applies to the mean, named after what ours does."""
    if mean is None or scope.wanted is None or mean.shape != scope.wanted.shape:
        return
    normalize: Any = scope.model.normalize
    for _, _, function in fits(mean, scope.wanted):
        told = _told(_affine_of(normalize, mean), _affine_of(function, mean))
        yield Edit("normalisation", f"normalize {told}", "", overriding("normalize", _instead(function)))


def _instead(function: Function) -> Callable[..., Any]:
    return lambda model, old, z: function(z)


def _affine_of(function: Function, like: Tensor) -> tuple[Tensor, Tensor]:
    """(shift, scale) per channel of (z - shift) * scale."""
    zero, one = (function(make(like[:1])).flatten(2)[0, :, 0] for make in (torch.zeros_like, torch.ones_like))
    return -zero / (one - zero), one - zero


def _told(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> str:
    (shift, scale), (their_shift, their_scale) = ours, theirs
    one, none = torch.ones_like(scale), torch.zeros_like(shift)

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-7, atol=1e-9)

    if same(shift, none) and same(scale, one):
        return "does nothing; it should be (z - shift) * scale"
    if same(their_shift, none) and same(their_scale, one):
        return "should do nothing: the latent is normalised already"
    if same(scale * their_scale, one):
        return "has 1 / scale for scale"
    if same(scale, their_scale):
        return "has the shift with the other sign" if same(shift, -their_shift) else "has another shift"
    return "has another scale" if same(shift, their_shift) else "has another shift and scale"


def _halves(moments: Tensor) -> Tensor:
    return torch.cat(moments.chunk(2, 1)[::-1], 1)


_MOMENTS: tuple[tuple[str, str, Function], ...] = (
    ("posterior", "the posterior should be a {}, the latent its mode", lambda m: m),
    ("moments order", "the second half of the moments is the mean ({})", _halves),
)


def _posterior(kind: type[DiagonalGaussian], change: Function) -> Callable[[nn.Module], Undo]:
    def encode(model: Any, old: Any, *args: Any, **kwargs: Any) -> EncoderOutput:
        return EncoderOutput(kind(change(old(*args, **kwargs).latent_dist.parameters)))

    return overriding("encode", encode)


def _through(model: Any, half: str, old: Any, x: Tensor, given: bool, args: Any, kwargs: Any) -> tuple[Any, Tensor]:
    """What a call gives, and what its network gave in it, which gets `x` itself if `given`."""
    network, seen = getattr(model, half), list[Tensor]()
    handles = [network.register_forward_hook(lambda m, a, out: seen.append(copied(out)))]
    if given:
        handles.append(network.register_forward_pre_hook(lambda m, a: (x.clone(), *a[1:]), prepend=True))
    try:
        with in_one_piece(model):
            return old(x, *args, **kwargs), seen[-1]
    finally:
        for handle in handles:
            handle.remove()


def _plain_encode(given: bool, returned: bool) -> Callable[..., EncoderOutput]:
    def encode(model: Any, old: Any, x: Tensor, *args: Any, **kwargs: Any) -> EncoderOutput:
        out, moments = _through(model, "encoder", old, x, given, args, kwargs)
        posterior = out.latent_dist
        kind = SoftplusGaussian if isinstance(posterior, SoftplusGaussian) else DiagonalGaussian
        return EncoderOutput(kind(moments) if returned else posterior)

    return encode


def _plain_decode(given: bool, returned: bool, limits: Any = ...) -> Callable[..., DecoderOutput]:
    def decode(model: Any, old: Any, z: Tensor, *args: Any, **kwargs: Any) -> DecoderOutput:
        out, raw = _through(model, "decoder", old, z, given, args, kwargs)
        if not returned:
            return DecoderOutput(out.sample)
        ends = model.contract.clamp if limits is ... else limits
        return DecoderOutput(raw if ends is None else raw.clamp(*ends))

    return decode


def _output(output: str, function: Function) -> Callable[[nn.Module], Undo]:
    if output in ("decoded", "unclamped"):
        return overriding("decode", lambda model, old, *a, **k: DecoderOutput(function(old(*a, **k).sample)))
    if output == "normalized":
        return overriding("normalize", lambda model, old, z: function(old(z)))

    def encode(model: Any, old: Any, *args: Any, **kwargs: Any) -> EncoderOutput:
        posterior = old(*args, **kwargs).latent_dist
        if output == "moments":
            return EncoderOutput(type(posterior)(function(posterior.parameters)))
        if output == "mean":
            posterior.mean = function(posterior.mode())
            posterior.mode = lambda: posterior.mean
        return EncoderOutput(posterior)

    return overriding("encode", encode)
