"""Correct implementations that are written otherwise: convolutions, resolution, channels, and how a VAE is run."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.clean import VARIANTS, everywhere, variant
from bench.drift.kinds_conv import amounts
from bench.drift.sites import children, in_one_piece
from vaeport import layers as words
from vaeport.vae import VAE

__all__ = ["VARIANTS"]


def taps(self: Any, x: Tensor, weight: Tensor, pad: Any) -> Any:
    """(what lies under a tap of the kernel for every output, the tap's matrix [C_out, C_in])."""
    x = F.pad(x, amounts(pad))
    rank = len(pad)
    spans = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], self.dilation, strict=True)]
    counts = [(n - s) // step + 1 for n, s, step in zip(x.shape[2:], spans, self.stride, strict=True)]
    for tap in product(*map(range, weight.shape[2:])):
        part = x
        for axis in range(rank):
            start = tap[axis] * self.dilation[axis]
            stop = start + (counts[axis] - 1) * self.stride[axis] + 1
            part = part[(slice(None),) * (2 + axis) + (slice(start, stop, self.stride[axis]),)]
        yield part, weight[(slice(None), slice(None), *tap)]


def biased(self: Any, y: Tensor) -> Tensor:
    return y if self.bias is None else y + self.bias.view(-1, *(1,) * (y.dim() - 2))


@variant
def convolutions_as_products(vae: VAE) -> int:
    """Unfolded, then one matrix product."""

    def _convolve(self: Any, x: Tensor, weight: Tensor, pad: Any) -> Tensor:
        parts, matrices = zip(*taps(self, x, weight, pad), strict=True)
        y = torch.tensordot(torch.cat(matrices, 1), torch.cat(parts, 1), dims=([1], [1]))
        return biased(self, y.transpose(0, 1))

    return everywhere(vae, words.Conv, _convolve=_convolve)


@variant
def convolutions_tap_by_tap(vae: VAE) -> int:
    def _convolve(self: Any, x: Tensor, weight: Tensor, pad: Any) -> Tensor:
        y: Any = 0.0
        for part, matrix in reversed(list(taps(self, x, weight, pad))):
            y = y + torch.einsum("oc,bc...->bo...", matrix, part)
        return biased(self, y)

    return everywhere(vae, words.Conv, _convolve=_convolve)


@variant
def convolutions_in_two_halves(vae: VAE) -> int:
    """The sum of two halves of the input's channels, the second first."""

    def _convolve(self: Any, x: Tensor, weight: Tensor, pad: Any) -> Tensor:
        x, conv = F.pad(x, amounts(pad)), (F.conv1d, F.conv2d, F.conv3d)[len(pad) - 1]
        n = (x.shape[1] + 1) // 2
        parts = [(x[:, n:], weight[:, n:]), (x[:, :n], weight[:, :n])]
        sums = [conv(a, w, None, self.stride, 0, self.dilation) for a, w in parts if a.shape[1]]
        return biased(self, sum(sums[1:], sums[0]))

    return everywhere(vae, words.Conv, _convolve=_convolve)


@variant
def convolutions_padded_beforehand(vae: VAE) -> int:
    def _convolve(self: Any, x: Tensor, weight: Tensor, pad: Any) -> Tensor:
        conv = (F.conv1d, F.conv2d, F.conv3d)[len(pad) - 1]
        return biased(self, conv(F.pad(x, amounts(pad)), weight, None, self.stride, 0, self.dilation))

    return everywhere(vae, words.Conv, _convolve=_convolve)


@variant
def channels_last_weights(vae: VAE) -> int:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    found = [
        conv for _, conv in children(vae, words.Conv) if "weight" in conv._parameters and conv.weight.dim() in formats
    ]
    for conv in found:
        conv.weight.data = conv.weight.data.contiguous(memory_format=formats[conv.weight.dim()])
    return len(found)


@variant
def weight_norms_written_out(vae: VAE) -> int:
    def kernel_weight(self: Any) -> Tensor:
        v = self.weight_v
        return v * (self.weight_g / v.square().sum((1, 2), keepdim=True).sqrt())

    return everywhere(vae, (words.WeightNormConv, words.WeightNormConvTranspose1d), kernel_weight=kernel_weight)


@variant
def transposed_by_stuffing(vae: VAE) -> int:
    """Zeros between the samples, then a convolution with the flipped kernel."""

    def forward(self: Any, x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:2], (x.shape[-1] - 1) * self.stride + 1)
        wide[..., :: self.stride] = x
        pad = self.kernel - 1 - self.crop
        return F.conv1d(wide, self.kernel_weight().flip(-1).transpose(0, 1), self.bias, padding=pad)

    return everywhere(vae, words.WeightNormConvTranspose1d, forward=forward)


@variant
def nearest_by_repeating(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        for axis, factor in enumerate(reversed(self.factors), 1):
            x = x.repeat_interleave(factor, -axis)
        return x

    return everywhere(vae, words.NearestUpsample, forward=forward)


@variant
def nearest_by_indices(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        for axis, factor in enumerate(reversed(self.factors), 1):
            x = x.index_select(-axis, torch.arange(x.shape[-axis] * factor, device=x.device) // factor)
        return x

    return everywhere(vae, words.NearestUpsample, forward=forward)


@variant
def pads_by_indices(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        for i, (before, after) in enumerate(self.pads):
            axis = i - len(self.pads)
            n = x.shape[axis]
            at = torch.arange(-before, n + after, device=x.device)
            inner = {"replicate": at.clamp(0, n - 1), "reflect": (n - 1) - ((n - 1) - at.abs()).abs()}
            kept = inner.get(self.mode, at.clamp(0, n - 1))
            x = x.index_select(axis, kept)
            if self.mode == "constant":
                shape = [-1 if a == axis % x.dim() else 1 for a in range(x.dim())]
                x = x * ((at >= 0) & (at < n)).to(x.dtype).view(shape)
        return x

    return everywhere(vae, words.Pad, forward=forward)


@variant
def shuffles_by_slices(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        t, h, w = self.factors
        channels = x.shape[1] // (t * h * w)
        y = x.new_zeros(x.shape[0], channels, *(n * f for n, f in zip(x.shape[2:], self.factors, strict=True)))
        for a, b, c in product(range(t), range(h), range(w)):
            at = (a * w + c) * h + b if self.width_first else (a * h + b) * w + c
            y[:, :, a::t, b::h, c::w] = x[:, at :: t * h * w]
        return y

    return everywhere(vae, words.Shuffle, forward=forward)


@variant
def unshuffles_by_slices(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        t, h, w = self.factors
        n, m, k = (size // f for size, f in zip(x.shape[2:], self.factors, strict=True))
        x = x[:, :, : n * t, : m * h, : k * w]
        order = [(a, b, c) for a, b, c in product(range(t), range(h), range(w))]
        if self.width_first:
            order = [(a, b, c) for a, c, b in product(range(t), range(w), range(h))]
        return torch.stack([x[:, :, a::t, b::h, c::w] for a, b, c in order], 2).flatten(1, 2)

    return everywhere(vae, words.Unshuffle, forward=forward)


@variant
def means_by_sums(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        n = x.shape[1] // self.groups
        return sum(x[:, i::n] for i in range(n)) / n

    return everywhere(vae, words.GroupMean, forward=forward)


@variant
def repeats_by_stacking(vae: VAE) -> int:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.stack([x] * self.times, 2 if isinstance(self, words.RepeatChannels) else 1).flatten(1, 2)

    return everywhere(vae, (words.RepeatChannels, words.TileChannels), forward=forward)


@variant
def pairs_by_stacking(vae: VAE) -> int:
    return everywhere(
        vae, words.ChannelsToTime, forward=lambda self, x: torch.stack(x.chunk(self.factor, 1), 3).flatten(2, 3)
    )


@variant
def in_one_go(vae: VAE) -> int:
    pieces = vae.encode_pieces is not None
    in_one_piece(vae)
    return int(pieces)


@variant
def in_other_pieces(vae: VAE) -> int:
    if vae.contract.modality == "image":
        return 0
    short = vae.contract.modality == "audio"
    vae.encode_pieces, vae.decode_pieces = ((5, 7), (2, 3)) if short else ((3, 2), (2, 1))  # type: ignore[misc]
    return 2
