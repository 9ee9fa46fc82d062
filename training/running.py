"""The layers of a VAE as they run in training: the same functions, in fewer passes over memory."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from vaeport.layers import TIME, Add, Chain, ChannelRMSNorm, Conv, Identity, SiLU


class StillConv(Conv):
    """One frame behind zeros: its own tap is all that counts, in two dimensions."""

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[tuple[int, int], ...]) -> Tensor:
        alone = len(pad) == 3 and x.shape[TIME] == 1 and pad[TIME] == (self.kernel[TIME] - 1, 0)
        if not alone:
            return super()._convolve(x, weight, pad)
        flat = F.conv2d(x[:, :, 0], weight[:, :, -1], self.bias, self.stride[1:], tuple(p[0] for p in pad[1:]))
        return flat.unsqueeze(2)


def activated(x: Tensor, gain: Tensor) -> Tensor:
    """silu(x / |x| * sqrt(C) * gain) of rows of channels [N, C]; sums in float32."""
    wide = x.float()
    unit = wide * torch.rsqrt(wide.square().sum(1, keepdim=True).clamp_min(1e-24))
    return F.silu(unit * (gain.float() * gain.shape[0] ** 0.5)).to(x.dtype)


class NormThenSiLU(ChannelRMSNorm):
    """A norm over the channels of each position, and the activation behind it."""

    function = staticmethod(activated)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        last = x.movedim(1, -1)  # one shape of input for all, or torch.compile would make many functions
        return self.function(last.reshape(-1, x.shape[1]), self.gain).view(last.shape).movedim(-1, 1)


def prepared(half: nn.Module, *, fused: bool) -> nn.Module:
    """The tree, changed in place; parameters and their names stay. fused: norms are compiled by torch.compile."""
    kind: Any = NormThenSiLU
    if fused:
        kind = type("Compiled", (NormThenSiLU,), {"function": staticmethod(torch.compile(activated, dynamic=True))})
    for module in list(half.modules()):
        if type(module) is Conv:
            module.__class__ = StillConv
        if isinstance(module, Chain):
            rows = list(module._modules.items())
            for (_, norm), (name, act) in itertools.pairwise(rows):
                if type(norm) is ChannelRMSNorm and type(act) is SiLU:
                    norm.__class__ = kind
                    module._modules[name] = Identity()
    return half


def cast(half: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The parameters in the type that the layers run in, channels last; gradients go to the parameters themselves."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    found = {}
    for name, weight in half.named_parameters():
        found[name] = weight.to(dtype, memory_format=formats.get(weight.dim(), torch.contiguous_format))
    return found


def run(half: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """[B, C, T, H, W] through the half with these weights, in their type; float32 out."""
    first = next(iter(weights.values()))
    x = x.to(first.dtype, memory_format=torch.channels_last_3d)
    y: Tensor = functional_call(half, weights, (x,))
    return y.float()


@torch.no_grad()
def initialise(half: nn.Module, generator: torch.Generator) -> None:
    """Weights of a young network: variances are kept, residual branches start small, frames pass in time."""
    draw = partial(torch.randn, generator=generator)
    for module in half.modules():
        if isinstance(module, Conv):
            taps = module.weight
            seen = (
                taps[:, :, -1:] if taps.dim() == 5 and taps.shape[-1] > 1 else taps
            )  # zeros lie in the past of stills
            taps.copy_(draw(taps.shape) * (1.4 / seen[0].numel()) ** 0.5)
            if taps.dim() == 5 and taps.shape[-1] == 3:
                taps[:, :, :-1] *= 0.3
            if taps.dim() == 5 and taps.shape[2:] == (3, 1, 1):  # every frame, or the mean of its neighbours
                taps *= 0.1
                eye = torch.eye(taps.shape[1])
                for rows in taps.split(taps.shape[1]):
                    for tap, share in enumerate((0.25, 0.5, 0.25) if module.stride[0] == 2 else (0.0, 0.0, 1.0)):
                        rows[:, :, tap, 0, 0] += share * eye
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Linear):
            module.weight.copy_(draw(module.weight.shape) * module.weight.shape[1] ** -0.5)
            module.bias.zero_()
    for module in half.modules():
        if isinstance(module, Add):
            last = list(module.main.modules())[-1]
            last.weight.mul_(0.1)
