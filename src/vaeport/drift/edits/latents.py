"""Edits of the steps around the networks: the posterior, the latent's normalisation, what is cut before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, all_of
from vaeport.drift.edits.fits import fits
from vaeport.drift.edits.functions import Function
from vaeport.layers import DiagonalGaussian, SoftplusGaussian
from vaeport.vae import DecoderOutput, EncoderOutput


def latent_edits(scope: Scope, output: str) -> Iterator[Edit]:
    """For an output that differs though the network before it does not."""
    if output in ("mean", "std", "moments"):
        for kind in (DiagonalGaussian, SoftplusGaussian):
            for cause, says, change in _MOMENTS:
                yield Edit(cause, says.format(kind.__name__), "", _posterior(kind, change))
    if output in ("moments", "unclamped", "decoded"):
        yield Edit("crop", "the network should get its input as it is given", "", _as_given)
        yield Edit("crop", "what the network gives should be returned as it is", "", _returned)
    if output == "decoded":
        for limits in ((-1.0, 1.0), (0.0, 1.0), None):
            says = "the output should not be clamped" if limits is None else f"the output should be clamped to {limits}"
            yield Edit("clamp", says, "", _clamped(limits))
    if scope.found is not None and scope.wanted is not None:
        for cause, says, function in fits(scope.found, scope.wanted):
            yield Edit(cause, f"{output}: {says}", "", _output(output, function))


def normalisation_edits(scope: Scope, mean: Tensor | None) -> Iterator[Edit]:
    """For `normalized` alone: the affine map that the reference applies to the mean, named after what ours does."""
    if mean is None or scope.wanted is None or mean.shape != scope.wanted.shape:
        return
    for _, _, function in fits(mean, scope.wanted):
        ours = _affine_of(lambda z: scope.model.normalize(z), mean)
        theirs = _affine_of(function, mean)
        yield Edit("normalisation", f"normalize {_told(ours, theirs)}", "", _method("normalize", lambda self, old, z: function(z)))


def _affine_of(function: Function, like: Tensor) -> tuple[Tensor, Tensor]:
    """(shift, scale) per channel of (z - shift) * scale."""
    zero, one = torch.zeros_like(like[:1]), torch.ones_like(like[:1])
    at_zero, at_one = (function(t).flatten(2)[0, :, 0] for t in (zero, one))
    scale = at_one - at_zero
    return -at_zero / scale, scale


def _told(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> str:
    (shift, scale), (their_shift, their_scale) = ours, theirs
    nothing = torch.zeros_like(shift), torch.ones_like(scale)

    def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
        return all(torch.allclose(x, y, rtol=1e-7, atol=1e-9) for x, y in zip(a, b, strict=True))

    if same(ours, nothing):
        return "does nothing; it should be (z - shift) * scale"
    if same(theirs, nothing):
        return "should do nothing: the latent is normalised already"
    if torch.allclose(scale * their_scale, nothing[1], rtol=1e-7):
        return "has 1/scale for scale"
    if torch.allclose(shift, -their_shift, rtol=1e-7):
        return "has the shift with the other sign"
    if torch.allclose(shift, their_shift, rtol=1e-7):
        return "has another scale"
    return "has another shift" if torch.allclose(scale, their_scale, rtol=1e-7) else "has another shift and scale"


def _halves(moments: Tensor) -> Tensor:
    return torch.cat(moments.chunk(2, 1)[::-1], 1)


_MOMENTS: tuple[tuple[str, str, Function], ...] = (
    ("posterior", "the latent should be the {}'s mode", lambda m: m),
    ("moments order", "the second half of the moments is the mean ({})", _halves),
)


def _posterior(kind: type[DiagonalGaussian], change: Function) -> Callable[[nn.Module], Undo]:
    def encode(self: Any, old: Any, *args: Any, **kwargs: Any) -> EncoderOutput:
        return EncoderOutput(kind(change(old(*args, **kwargs).latent_dist.parameters)))

    return _method("encode", encode)


def _as_given(model: nn.Module) -> Undo:
    def through(half: str) -> Callable[..., Any]:
        def call(self: Any, old: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            handle = getattr(self, half).register_forward_pre_hook(lambda m, given: (x, *given[1:]), prepend=True)
            try:
                return old(x, *args, **kwargs)
            finally:
                handle.remove()

        return call

    return all_of(_method(name, through(half)) for name, half in (("encode", "encoder"), ("decode", "decoder")))(model)


def _returned(model: nn.Module) -> Undo:
    return _clamped(model.contract.clamp)(model)


def _clamped(limits: tuple[float, float] | None) -> Callable[[nn.Module], Undo]:
    """Decode gives what the decoder gives, clamped to `limits`."""

    def decode(self: Any, old: Any, z: Tensor, *args: Any, **kwargs: Any) -> DecoderOutput:
        seen: list[Tensor] = []
        handle = self.decoder.register_forward_hook(lambda m, given, out: seen.append(out.clone()))
        try:
            old(z, *args, **kwargs)
        finally:
            handle.remove()
        return DecoderOutput(seen[-1] if limits is None else seen[-1].clamp(*limits))

    return _method("decode", decode)


def _output(output: str, function: Function) -> Callable[[nn.Module], Undo]:
    if output in ("decoded", "unclamped"):
        return _method("decode", lambda self, old, *a, **k: DecoderOutput(function(old(*a, **k).sample)))
    if output == "normalized":
        return _method("normalize", lambda self, old, z: function(old(z)))

    def encode(self: Any, old: Any, *args: Any, **kwargs: Any) -> EncoderOutput:
        posterior = old(*args, **kwargs).latent_dist
        if output == "moments":
            return EncoderOutput(type(posterior)(function(posterior.parameters)))
        posterior.mean = function(posterior.mode())
        posterior.mode = lambda: posterior.mean
        return EncoderOutput(posterior)

    return _method("encode", encode)


def _method(name: str, new: Callable[..., Any]) -> Callable[[nn.Module], Undo]:
    """A method of the model that calls `new(self, old, ...)`."""

    def apply(model: nn.Module) -> Undo:
        held = vars(model).get(name)
        old = getattr(model, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return new(model, old, *args, **kwargs)

        object.__setattr__(model, name, call)

        def undo() -> None:
            object.__delattr__(model, name)
            if held is not None:
                object.__setattr__(model, name, held)

        return undo

    return apply
