"""What a device is like: how fast its kernels are, and how much memory they need beside their tensors. Measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CONVOLUTION = torch.ops.aten.convolution.default
_PRODUCTS = (*(getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm")), torch.ops.aten.bmm.dtype)
_KERNELS = {"vaeport::conv": 2, "vaeport::upsampled_conv": 1}
"""operators of `vaeport.kernels`, and which argument is the weight"""
_LARGE = 2**23
"""elements of a tensor that keeps a GPU busy; a CPU gets a sixteenth"""
_LONG = 0.2
"""seconds of a run that need not be measured again: a CPU without arithmetic in 16 bits takes so long"""
_WAITING = 0.3
"""share of a single copy's speed that runs had: host memory is pinned on the way, and copies wait for kernels"""


class Kernel(NamedTuple):
    """A kind of operation that is measured by itself.

    shape   "convolution": weight, stride, padding, transposed; "kernel": weight; "attention": channels; "matmul": none
    """

    kind: str
    shape: tuple[Any, ...] = ()

    @classmethod
    def of(cls, func: Any, args: Sequence[Any]) -> Kernel | None:
        """The kernel of an ATen operation; None where memory traffic says all."""
        if func is _CONVOLUTION:
            _, weight, _, stride, padding, dilation, transposed = args[:7]
            return cls("convolution", (*map(tuple, (weight.shape, stride, padding, dilation)), transposed))
        if func in _PRODUCTS:
            return cls("matmul")
        if func._schema.name in _KERNELS:
            weight = args[_KERNELS[func._schema.name]]
            return cls("kernel", tuple(weight.shape))
        return None


@dataclass
class Profile:
    """A device and a type.

    bandwidth   bytes per second of elementwise operations; transfer: between device and host
    beside      workspace of a kernel per byte of its tensors
    rate        operations per second of a kernel
    """

    name: str = "unknown"
    bandwidth: float = 1e12
    transfer: float = 2.5e10
    beside: dict[Kernel, float] = field(default_factory=dict)
    rate: dict[Kernel, float] = field(default_factory=dict)
    flops: float = 3e14

    def workspace(self, kernel: Kernel | None, size: int) -> int:
        """Bytes that a kernel needs beside tensors of `size` bytes."""
        return 0 if kernel is None else int(self.beside.get(kernel, 0.0) * size)

    def seconds(self, kernel: Kernel | None, flops: int, size: int) -> float:
        """The longer of what arithmetic and what memory take."""
        arithmetic = flops / self.rate.get(kernel, self.flops) if kernel else 0.0
        return max(arithmetic, size / self.bandwidth)

    def measure(self, kernels: set[Kernel], device: torch.device, dtype: torch.dtype) -> None:
        """Measures those that are not known yet; they need at most about 100 MiB."""
        for kernel in sorted(kernels - self.rate.keys(), key=repr):
            run, flops, size = _example(kernel, device, dtype)
            self.rate[kernel] = flops / _seconds(run, device)
            self.beside[kernel] = _beside(run, device) / size


@cache
def profile_of(device: torch.device, dtype: torch.dtype) -> Profile:
    """The profile of a device, measured once per process; kernels are added as they are met."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    elements = _LARGE if device.type == "cuda" else _LARGE // 16
    x = torch.ones(1, 64, elements // 64, device=device, dtype=dtype)
    bandwidth = 2 * x.nbytes / _seconds(lambda: F.silu(x), device)
    transfer = 2.5e10
    if device.type == "cuda":
        host = torch.empty(x.shape, dtype=dtype, pin_memory=True)
        transfer = _WAITING * x.nbytes / _seconds(lambda: host.copy_(x, non_blocking=True), device)
    return Profile(f"{name} {dtype}", bandwidth, transfer)


def _example(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Tensor], int, int]:
    """A call, its operations, and the bytes of its tensors."""
    elements = _LARGE if device.type == "cuda" else _LARGE // 16
    if kernel.kind == "attention":
        channels, n = kernel.shape[0], 8192 if device.type == "cuda" else 1024
        q = torch.zeros(1, 1, n, channels, device=device, dtype=dtype)
        return lambda: F.scaled_dot_product_attention(q, q, q), 4 * n * n * channels, 4 * q.nbytes
    if kernel.kind == "matmul":
        a = torch.zeros(elements // 512, 512, device=device, dtype=dtype)
        b = torch.zeros(512, 512, device=device, dtype=dtype)
        return lambda: a @ b, 2 * a.numel() * 512, 2 * a.nbytes
    if kernel.kind == "kernel":
        return _kernel_example(kernel.shape, device, dtype, elements)
    shape, stride, padding, dilation, transposed = kernel.shape
    weight = torch.zeros(shape, device=device, dtype=dtype)
    channels, rank = shape[0] if transposed else shape[1], len(shape) - 2
    side = max(8, *shape[2:], round((elements / channels) ** (1 / rank)))
    # time is short in a stream
    axes = (side,) if rank == 1 else (side, side) if rank == 2 else (4 + shape[2], *(int(side**1.5 / 2.5),) * 2)
    x = torch.zeros(1, channels, *axes, device=device, dtype=dtype)

    def run(x: Tensor = x, weight: Tensor = weight) -> Tensor:
        return torch.convolution(x, weight, None, stride, padding, dilation, transposed, [0] * rank, 1)

    y = run(x.to("meta"), weight.to("meta"))
    pairs = x[0, 0].numel() if transposed else y[0, 0].numel()
    return run, 2 * pairs * prod(shape), x.nbytes + y.nbytes + weight.nbytes


def _kernel_example(
    shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, elements: int
) -> tuple[Callable[[], Tensor], int, int]:
    from vaeport.kernels.conv import FastConv
    from vaeport.kernels.waveform import FastWaveConv
    from vaeport.layers import Conv

    out, channels, *taps = shape
    line = taps[:2] == [1, 1] and taps[2] > 1
    kernel, n = (taps[2:], 1) if line else (taps, 2 + taps[0])
    conv: Any = Conv(channels, out, tuple(kernel)).to(device, dtype).requires_grad_(False)
    places = max(1, elements // channels)
    side = max(8, round((places / n) ** 0.5))
    x = torch.zeros(1, channels, *((places,) if line else (n, side, side)), device=device, dtype=dtype)
    fast = (FastWaveConv if line else FastConv).of(conv)
    y = fast(x)
    return lambda: fast(x), 2 * y[0, 0].numel() * prod(shape), x.nbytes + y.nbytes + conv.weight.nbytes


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The shortest of several runs; one that takes long by itself is alone."""
    found: list[float] = []
    while len(found) < 4 and (not found or found[-1] < _LONG):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def _beside(run: Callable[[], Tensor], device: torch.device) -> int:
    """Bytes that a call holds beside what it returns; a CPU's are not told."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    y = run()
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before - y.nbytes)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
