"""Convolutions with half of the multiplications or two thirds: minimal filtering along the kernel's first axis."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels.filtering import PAIRS, QUADS, Scheme
from vaeport.kernels.kept import Kept, in_place_of, served, worthwhile
from vaeport.layers.conv import Conv, Pad
from vaeport.layers.layer import Layer


class MinimalConv(Conv):
    """As `Conv`: the sums in another order, for float32 and float64 without gradients.

    x [B, C, H, W] or [B, C, T, H, W]; the first axis of the kernel has three taps. Infinite inputs give NaN nearby.
    Rows come in fours as long as there are four, then as a pair, then alone; frames as pairs, which round less.
    """

    _filters: dict[int, Kept]

    @classmethod
    def of(cls, conv: Conv) -> Self:
        """With the parameters of `conv`."""
        twin = in_place_of(cls, conv)
        twin._filters = {scheme.size: Kept(scheme.filters) for scheme in (QUADS, PAIRS)}
        return twin

    @classmethod
    def serves(cls, conv: Layer) -> bool:
        """Whether the class computes this layer, and faster than it does itself.

        With few channels the additions take longer than the multiplications that they save, with one row sooner.
        """
        if type(conv) is not Conv or len(conv.kernel) not in (2, 3) or conv.kernel[0] != 3:
            return False
        least = 128 if len(conv.kernel) == 2 else 32
        return set(conv.stride) == set(conv.dilation) == {1} and min(conv.weight.shape[:2]) >= least

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        rank = len(pad)
        n = x.shape[-rank] + sum(pad[0]) - 2
        schemes = (QUADS, PAIRS) if rank == 2 else (PAIRS,)
        share = x.numel() // x.shape[-rank] * (n // schemes[0].size or 1)
        if n < 2 or not (worthwhile(share) and served(x, weight, self.bias)):
            return super()._convolve(x, weight, pad)
        # zeros are appended along the first axis, and where a convolution takes as many on both sides alone
        inner = [0 if before != after else before for before, after in pad[1:]]
        both = [(p[0] - k, p[1] - k) for p, k in zip(pad, (0, *inner), strict=True)]
        if any(map(any, both)):
            x = F.pad(x, [side for p in reversed(both) for side in p])
        sizes = [x.shape[i] + 2 * inner[i] - self.kernel[i] + 1 for i in range(1 - rank, 0)]
        y = x.new_empty(x.shape[0], weight.shape[0], n, *sizes)
        done = 0
        for scheme in schemes:
            count = (n - done) // scheme.size
            if count:
                self._groups(scheme, count, x, y, done, weight, inner)
                done += count * scheme.size
        if done < n:
            rest = super()._convolve(x.narrow(-rank, done, 3), weight, ((0, 0), *((p, p) for p in inner)))
            y.narrow(-rank, done, 1).copy_(rest)
        return y

    def _groups(
        self, scheme: Scheme, count: int, x: Tensor, y: Tensor, start: int, weight: Tensor, inner: list[int]
    ) -> None:
        """Writes `count` groups of outputs into `y`, from the output `start` on."""
        frames = len(inner) == 2
        if frames:  # are samples of a flat convolution
            x, y, axis = x.transpose(1, 2), y.transpose(1, 2), 1
        else:
            inner, axis = [0, *inner], 2
        filters = self._filters[scheme.size].of(weight)

        def every(t: Tensor, first: int) -> Tensor:
            stop = first + (count - 1) * scheme.size + 1
            return t[(*(slice(None),) * axis, slice(first, stop, scheme.size))]

        def product(i: int, mixed: Tensor, biased: bool = False) -> Tensor:
            flat, kernel = (mixed.flatten(0, 1), filters[i]) if frames else (mixed, filters[i].unsqueeze(2))
            p = F.conv2d(flat, kernel, self.bias if biased else None, padding=inner)
            return p.unflatten(0, mixed.shape[:2]) if frames else p

        d = [every(x, start + i) for i in range(scheme.size + 2)]
        scheme.outputs(d, product, [every(y, start + i) for i in range(scheme.size)])
