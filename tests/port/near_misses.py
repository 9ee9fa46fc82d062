"""Implementations that are almost a reference: same keys, same shapes, another function.

Each of `NEAR_MISSES` takes a Diffusers module and returns a copy with one thing changed; the first word of its name is
the class that it is for, as in `tests.port.scrambled`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanRMS_norm
from diffusers.models.autoencoders.autoencoder_oobleck import Snake1d
from torch import Tensor, nn

Change = Callable[[Any], Any]
NEAR_MISSES: dict[str, Change] = {}


def near_miss(change: Change) -> Change:
    """Enters under its name a function that changes a module in place, as one that changes a copy."""

    def changed(module: Any) -> Any:
        # weights computed by weight norm cannot be copied, and are computed anew at every call
        computed = {id(t): t for m in module.modules() for t in vars(m).values() if isinstance(t, Tensor)}
        module = copy.deepcopy(module, computed)
        change(module)
        return module

    NEAR_MISSES[change.__name__] = changed
    return changed


class _Rearranged:
    """Parts of the output's channels in another order; a mixin for convolutions."""

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        return self.rearranged(super().forward(x, *args))  # type: ignore[misc]


class _PairsLast(_Rearranged, WanCausalConv3d):
    """Channels are (c, 2) instead of (2, c): a frame's two successors are interleaved, not one behind the other."""

    def rearranged(self, y: Tensor) -> Tensor:
        return y.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)


class _KeyFirst(_Rearranged, nn.Conv2d):
    """k, q, v."""

    def rearranged(self, y: Tensor) -> Tensor:
        return torch.cat([y.chunk(3, 1)[i] for i in (1, 0, 2)], 1)


class _Swapped(_Rearranged):
    """The second half first."""

    def rearranged(self, y: Tensor) -> Tensor:
        return torch.cat(y.chunk(2, 1)[::-1], 1)


class _Swapped1d(_Swapped, nn.Conv1d):
    pass


class _Swapped2d(_Swapped, nn.Conv2d):
    pass


class _Swapped3d(_Swapped, WanCausalConv3d):
    pass


class _EpsInRoot(WanRMS_norm):
    """eps under the root, where the reference has a lowest length."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.gamma


class _SnakeEps(Snake1d):
    """1e-6 instead of 1e-9."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.beta.exp() + 1e-6).reciprocal() * (self.alpha.exp() * x).sin().square()


@near_miss
def kl_eps(module: Any) -> None:
    module.decoder.mid_block.resnets[0].norm1.eps = 1e-5


@near_miss
def kl_attention_eps(module: Any) -> None:
    module.encoder.mid_block.attentions[0].group_norm.eps = 1e-5


@near_miss
def kl_groups(module: Any) -> None:
    norm = module.encoder.down_blocks[-1].resnets[0].norm2
    norm.num_groups //= 2


@near_miss
def kl_padding_mode(module: Any) -> None:
    module.decoder.up_blocks[0].resnets[0].conv2.padding_mode = "replicate"


@near_miss
def kl_padding_side(module: Any) -> None:
    """One row and column on each side, where the reference has them at the end alone."""
    down = module.encoder.down_blocks[0].downsamplers[0]
    down.padding, down.conv.padding = 1, (1, 1)


@near_miss
def kl_moments_order(module: Any) -> None:
    (module.encoder.conv_out if module.quant_conv is None else module.quant_conv).__class__ = _Swapped2d


@near_miss
def wan_eps(module: Any) -> None:
    module.decoder.mid_block.resnets[0].norm1.__class__ = _EpsInRoot


@near_miss
def wan_padding_mode(module: Any) -> None:
    """Of the convolution after a decoder's resampling, over height and width."""
    up = next(m for m in module.decoder.modules() if getattr(m, "mode", "") == "upsample2d")
    up.resample[1].padding_mode = "replicate"


@near_miss
def wan_causality(module: Any) -> None:
    """Padding behind instead of in front, of one convolution."""
    conv = module.encoder.mid_block.resnets[0].conv1
    conv._padding = (*conv._padding[:4], conv._padding[5], conv._padding[4])


@near_miss
def wan_decoder_causality(module: Any) -> None:
    conv = module.decoder.conv_in
    conv._padding = (*conv._padding[:4], conv._padding[5], conv._padding[4])


@near_miss
def wan_channel_to_time_order(module: Any) -> None:
    up = next(m for m in module.decoder.modules() if getattr(m, "mode", "") == "upsample3d")
    up.time_conv.__class__ = _PairsLast


@near_miss
def wan_qkv_order(module: Any) -> None:
    module.decoder.mid_block.attentions[0].to_qkv.__class__ = _KeyFirst


@near_miss
def wan_moments_order(module: Any) -> None:
    module.quant_conv.__class__ = _Swapped3d


@near_miss
def oobleck_eps(module: Any) -> None:
    module.decoder.block[0].snake1.__class__ = _SnakeEps


@near_miss
def oobleck_padding_mode(module: Any) -> None:
    module.encoder.block[0].res_unit2.conv1.padding_mode = "replicate"


@near_miss
def oobleck_moments_order(module: Any) -> None:
    module.encoder.conv2.__class__ = _Swapped1d
