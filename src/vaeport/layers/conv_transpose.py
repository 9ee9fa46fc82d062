"""A transposed convolution over samples: the upsampler of waveform decoders.

y[i * stride - crop + k] += weight[k] * x[i]        the first and last `crop` outputs are dropped
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.conv import weight_norm_parameters
from vaeport.layers.layer import Chunk, Interval, Layer, State


class WeightNormConvTranspose1d(Layer):
    """[B, C_in, L] -> [B, C_out, (L - 1) * stride + kernel - 2 * crop], with weight norm.

    weight_v [C_in, C_out, kernel] and weight_g [C_in, 1, 1]: the first axis, over which the norm is not taken, is the
    input's.
    """

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    def __init__(self, channels: int, out_channels: int, kernel: int, *, stride: int, crop: int) -> None:
        super().__init__()
        if not crop <= min(stride, kernel - stride):
            raise ValueError(f"crop (={crop}) must be at most stride (={stride}) and kernel (={kernel}) - stride")
        self.kernel, self.stride, self.crop = kernel, stride, crop
        bound = (channels * kernel / stride) ** -0.5
        self.weight = nn.Parameter(torch.empty(channels, out_channels, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        weight_norm_parameters(self)

    def kernel_weight(self) -> Tensor:
        """The folded weight [C_in, C_out, kernel]."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)

    def forward(self, x: Tensor) -> Tensor:
        """All samples at once."""
        return self._transposed(x, self.kernel_weight(), self.crop)

    def _transposed(self, x: Tensor, weight: Tensor, crop: int) -> Tensor:
        return F.conv_transpose1d(x, weight, self.bias, self.stride, crop)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: the inputs that still reach into later outputs, and the folded weight.

        Inputs below `n` settle the outputs below `n * stride - crop`; the flush adds the tail, less its crop.
        """
        history, weight = state or (None, None)
        if x is None and (not last or history is None or history.shape[axis] == 0):
            return None, state
        if weight is None:
            weight = self.kernel_weight()
        parts = [part for part in (history, x) if part is not None]
        buffer = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
        old = 0 if history is None else history.shape[axis]
        y = self._transposed(buffer, weight, 0)
        start = self.crop if history is None else old * self.stride
        stop = y.shape[axis] - self.crop if last else buffer.shape[axis] * self.stride
        reach = -(-self.kernel // self.stride) - 1
        keep = min(reach, buffer.shape[axis])
        rest = buffer.narrow(axis, buffer.shape[axis] - keep, keep).clone()
        return (y.narrow(axis, start, stop - start) if stop > start else None), (rest, weight)

    def length(self, n: int, axis: int) -> int:
        """(n - 1) * stride + kernel - 2 * crop."""
        return 0 if n < 1 else (n - 1) * self.stride + self.kernel - 2 * self.crop

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Inputs whose kernels touch the outputs."""
        start, stop = outputs
        return -((self.kernel - 1 - start - self.crop) // self.stride), (stop - 1 + self.crop) // self.stride + 1

    def rate(self, axis: int) -> Fraction:
        """`stride` for each."""
        return Fraction(self.stride)
