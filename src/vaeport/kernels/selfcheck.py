"""Each operator on random inputs against its definition in float64: what is run before a kernel is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaeport.kernels import hopper_conv, ops
from vaeport.kernels.conv import FastConv, UpsampledConv, folded, volume
from vaeport.kernels.waveform import FastWaveConv, FastWaveUp
from vaeport.layers import Conv, NearestUpsample, Pad, Shuffle, SplitFirst, WeightNormConvTranspose1d

LARGEST = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 2e-6, torch.float64: 1e-12}
"""relative error that rounding explains: a result of the type, and sums in float32"""
Case = tuple[str, str, tuple[Any, ...]]
"""Operator, what is special, arguments"""


def error(name: str, given: tuple[Any, ...]) -> float:
    """|y - definition| / |definition|, the definition in float64 from the same inputs; infinite for a wrong shape."""
    found, wanted = getattr(ops.OPS, name)(*given), getattr(ops, name)(*(_wide(a) for a in given))
    if name == "moments":  # kernels take as many parts as they like
        found, wanted = (ops.merged(notes) for notes in (found, wanted))
    worst = 0.0
    for y, z in zip(*((t,) if isinstance(t, Tensor) else t for t in (found, wanted)), strict=True):
        if y.shape != z.shape:
            return float("inf")
        size = z.norm().item()
        off = (y.double() - z).norm().item() / size
        worst = max(worst, off if off == off else float("inf"))
    return worst


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def variant_error(v: hopper_conv.Variant, device: torch.device) -> float:
    """That of a convolution as the variant is compiled for it, on a small input."""
    dtype = torch.float16 if v.half else torch.bfloat16
    strided = v.th * v.tw > 1 or v.kt > 3
    kernel = (v.kt // (v.th * v.tw), v.kh * v.th, v.kw * v.tw)
    stride = (1, 1, 1) if not strided else (2, 2, 2) if v.kt > 9 else (1, 2, 2)
    channels, out = 2 * v.ck if v.ck == 64 else 3 * v.ck, v.n if v.n % 32 == 0 else v.n - 1
    rng = torch.Generator().manual_seed(v.n)
    shape = (1, channels, 1, 1, 200) if v.line else (1, channels, 3, 17, 19)
    x, weight = (
        torch.randn(size, generator=rng).to(device, dtype).movedim(1, -1).contiguous().movedim(-1, 1)
        for size in (shape, (out, channels, *kernel))
    )
    before = [kernel[0] - 1, kernel[1] // 2, kernel[2] // 2 * v.dil]
    given = (
        x,
        None,
        weight,
        None,
        None,
        None,
        None,
        before,
        [0, *before[1:]],
        stride,
        v.dil,
        False,
        [1, 1, 1],
        "groups",
    )
    y = ops.conv_out(x, None, weight, before, [0, *before[1:]], stride, v.dil, [1, 1, 1])
    packed = hopper_conv.packed(weight, strided)
    hopper_conv.run(x, packed, None, out, kernel, y, pad=before, stride=stride, dilation=v.dil, variant=v)
    wanted = ops.conv(*(_wide(a) for a in given))
    off = ((y.double() - wanted).norm() / wanted.norm()).item()
    return off if off == off else float("inf")


def cases(dtype: torch.dtype, device: str, seed: int) -> Iterator[Case]:
    """Of every operator, in all that it is used for."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int, last: bool = True) -> Tensor:
        x = torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype).to(device)
        return x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x

    def layer(conv: Any) -> Any:
        fan = next(iter(conv.parameters()))[0].numel()
        for parameter in conv.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng, dtype=torch.float64) * fan**-0.5
        return conv.to(device, dtype).requires_grad_(False)

    yield from _convolutions(normal, layer)
    gain = torch.randn(96, generator=rng).to(device)
    for edges in ([], [1, 1, 1, 1], [0, 2, 1, 0]):
        for mode in ("replicate", "reflect"):
            yield (
                "unit",
                f"gain, edges {edges} {mode}",
                (normal(2, 96, 3, 7, 5), gain, 1.0, 0.0, 1e-24, True, edges, mode),
            )
            slope, offset = (torch.randn(2, 64, generator=rng).to(device) for _ in range(2))
            yield "scaled", f"edges {edges} {mode}", (normal(2, 64, 3, 7, 5), slope, offset, True, edges, mode)
    yield "unit", "pixel norm", (normal(1, 160, 9, 11), None, 1 / 160, 1e-8, 0.0, False, [], "replicate")
    for shape in ((2, 128, 3, 9, 11), (1, 64, 40, 50)):
        x = normal(*shape) + 3
        yield "moments", str(shape), (x, 32)
    for factors, first, repeat, tile in (((2, 2, 2), False, 1, 1), ((1, 2, 2), True, 4, 1), ((2, 1, 1), False, 1, 2)):
        x = normal(2, 64, 3, 4, 5)
        yield "shuffled", f"{factors}, {repeat}, {tile}", (x, factors, first, repeat, tile)
        for groups in (0, 32):
            y = normal(1, 24 if not groups else 64, 4, 6, 8)
            yield "unshuffled", f"{factors}, {groups}", (y, factors, first, groups)
    pads = ([0, 0, 1, 1, 1, 1], [2, 1, 1, 0, 2, 1], [0] * 6)
    for factors, once, pad in zip(((2, 2, 2), (1, 1, 1), (1, 2, 2)), (True, False, False), pads, strict=True):
        for mode in ("replicate", "reflect"):
            yield "repeated", f"{factors}, {pad}, {mode}", (normal(2, 48, 3, 4, 5), factors, once, pad, mode)
    yield from _waveforms(normal, layer)
    log_alpha, log_beta = (torch.randn(96, generator=rng).to(device) for _ in range(2))
    yield "snake", "", (normal(2, 96, 50), log_alpha, log_beta)
    for columns in (37, 20000):
        scores = 9 * torch.randn(6, columns, generator=rng, dtype=torch.promote_types(dtype, torch.float32)).to(device)
        yield "weighted", f"{columns} columns", (scores, 0.3, dtype)


def _convolutions(normal: Any, layer: Any) -> Iterator[Case]:
    def given(
        conv: FastConv, x: Tensor, past: Tensor | None, addend: bool, repeat: bool, **pads: Any
    ) -> tuple[Any, ...]:
        before, after = pads["before"], pads["after"]
        bias = conv.bias if conv.bias is None or not x.is_cuda else conv._grouped(conv.bias)
        out = ops.conv_out(x, past, volume(conv.weight), before, after, pads["stride"], 1, conv.split)
        more = normal(*out.shape, last=out.shape[1] % 32 == 0) if addend else None
        packed = conv._packed.of(conv.weight)
        tail = (more, before, after, pads["stride"], 1, repeat, conv.split, conv.order)
        return (x, past, volume(conv.weight), conv.bias, *packed, bias, *tail)

    def plain(
        c: int, o: int, kernel: tuple[int, int, int], past: int, addend: bool, stride: tuple[int, ...] = (1, 1, 1)
    ) -> tuple[Any, ...]:
        conv = FastConv.of(layer(Conv(c, o, kernel, stride=stride)))
        before = [kernel[0] - 1 - past, kernel[1] // 2, kernel[2] // 2]
        frames = normal(2, c, past, 19, 21) if past else None
        sides = {"before": before, "after": [0, *before[1:]], "stride": list(stride)}
        return given(conv, normal(2, c, 3, 19, 21), frames, addend, False, **sides)

    for c, o in ((96, 96), (64, 192), (160, 160), (16, 384), (128, 128), (32, 32), (64, 64)):
        yield "conv", f"{c} to {o}", plain(c, o, (3, 3, 3), 0, True)
    yield "conv", "past", plain(96, 96, (3, 3, 3), 2, True)
    yield "conv", "half of the past", plain(96, 96, (3, 3, 3), 1, False)
    yield "conv", "few in", plain(3, 96, (3, 3, 3), 2, False)
    yield "conv", "few out", plain(96, 3, (3, 3, 3), 0, False)
    yield "conv", "129 out", plain(64, 129, (3, 3, 3), 0, False)
    yield "conv", "one tap", plain(64, 128, (1, 1, 1), 0, True)
    yield "conv", "time alone", plain(64, 128, (3, 1, 1), 2, False)
    for kernel, stride in (((1, 3, 3), (1, 2, 2)), ((3, 1, 1), (2, 1, 1)), ((3, 3, 3), (2, 2, 2))):
        yield "conv", f"stride {stride}", plain(64, 96, kernel, 0, False, stride)
    shuffles = (((2, 2, 2), False, 256), ((1, 2, 2), True, 256), ((1, 4, 4), True, 48), ((2, 1, 1), False, 128))
    for factors, first, out in shuffles:
        conv = FastConv.of(layer(Conv(64, out, (3, 3, 3))), Shuffle(factors, width_first=first))
        sides = {"before": [1, 1, 1], "after": [1, 1, 1], "stride": [1, 1, 1]}
        yield "conv", f"shuffle {factors}", given(conv, normal(1, 64, 3, 18, 9), None, out != 48, True, **sides)
    for nearest, rest in _upsamplings():
        conv = layer(rest[-1])
        up = UpsampledConv.of([nearest, *rest])
        assert up is not None
        x = normal(2, 64, 3, 9, 10)
        shape = ops.upsampled_shape(x, volume(conv.weight), up.frames)
        addend = normal(shape[0], shape[4], *shape[1:4])
        packed = folded(volume(conv.weight), up.frames)
        yield (
            "upsampled_conv",
            f"{conv.kernel}, {up.frames}",
            (x, volume(conv.weight), conv.bias, packed, addend, up.frames),
        )


def _waveforms(normal: Any, layer: Any) -> Iterator[Case]:
    for c, o, kernel, dilation in ((128, 128, 7, 9), (64, 256, 7, 1), (128, 2, 7, 3), (256, 64, 1, 1), (2, 128, 7, 1)):
        conv = FastWaveConv.of(layer(Conv(c, o, (kernel,), dilation=dilation)))
        weight, packed = conv._weights()
        side = [0, 0, (kernel - 1) * dilation // 2]
        addend = normal(2, o, 1, 1, 300) if o % 32 == 0 else None
        rest = (addend, side, side, [1, 1, 1], dilation, False, [1, 1, 1], "groups")
        x = normal(2, c, 1, 1, 300)
        yield "conv", f"line {c} to {o}, {kernel} taps {dilation} apart", (
            *(x, None, weight[:, :, None, None], conv.bias, packed, conv.bias), *rest
        )  # fmt: skip
    up = FastWaveUp.of(layer(WeightNormConvTranspose1d(128, 64, 8, stride=4, crop=2)))
    weight, packed = up._kept.of(up.weight_v, up.weight_g)
    bias, sides = up.bias.repeat(4), ([0, 0, 1], [0, 0, 1])
    last = (bias, packed, bias, None, *sides, [1, 1, 1], 1, False, [1, 1, 4], "groups")
    yield "conv", "line, 4 groups", (normal(2, 128, 1, 1, 90), None, weight[:, :, None, None], *last)


def _upsamplings() -> Iterator[tuple[Any, list[Any]]]:
    edges = Pad("replicate", ((2, 0), (1, 1), (1, 1)))
    yield NearestUpsample(2), [Conv(64, 96, (3, 3), pad=((1, 1), (1, 1)))]
    yield NearestUpsample((1, 2, 2)), [edges, Conv(64, 64, (3, 3, 3))]
    both = SplitFirst(NearestUpsample((1, 2, 2)), NearestUpsample((2, 2, 2)))
    yield both, [edges, Conv(64, 64, (3, 3, 3))]
