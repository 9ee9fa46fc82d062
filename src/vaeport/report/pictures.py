"""Small pictures of tensors: images, frames, spectrograms, and differences, as PNG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.media.files import extra

EDGE = 256
"""Longest side of a picture."""
_RAMP = ((0.06, 0.07, 0.16), (0.24, 0.15, 0.50), (0.66, 0.20, 0.47), (0.94, 0.47, 0.28), (1.0, 0.89, 0.52))
_FFT, _FLOOR = 256, -100.0


def png(rgb: Tensor) -> str:
    """[3, H, W] in 0..1 -> data URI of a PNG, at most `EDGE` wide and high; larger ones are averaged down."""
    with extra("PIL", "report"):
        from PIL import Image
    longest = max(rgb.shape[1:])
    if longest > EDGE:
        height, width = (max(1, round(n * EDGE / longest)) for n in rgb.shape[1:])
        rgb = F.adaptive_avg_pool2d(rgb, (height, width))
    pixels = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def coloured(values: Tensor) -> Tensor:
    """[H, W] in 0..1 -> [3, H, W], from dark to bright."""
    ramp = torch.tensor(_RAMP, dtype=torch.float64)
    place = values.double().nan_to_num(1.0, 1.0, 0.0).clamp(0, 1) * (len(_RAMP) - 1)
    low = place.floor().long().clamp(max=len(_RAMP) - 2)
    share = (place - low).unsqueeze(-1)
    return (ramp[low] * (1 - share) + ramp[low + 1] * share).permute(2, 0, 1)


def pictured(image: Tensor, value_range: tuple[float, float]) -> str:
    """[C, H, W] in the value range; three channels are colours, of other numbers the first is shown in grey."""
    low, high = value_range
    shown = ((image.double() - low) / (high - low)).nan_to_num(0.0, 1.0, 0.0)
    return png(shown if len(shown) == 3 else shown[:1].expand(3, -1, -1))


def difference_pictured(one: Tensor, other: Tensor) -> str:
    """The largest difference over channels, [C, H, W] each; brightest where it is largest, dark if there is none."""
    apart = (one.double() - other.double()).abs().amax(0).nan_to_num(float("inf"))
    finite = apart[apart.isfinite()]
    peak = finite.max() if finite.numel() else apart.new_zeros(())
    return png(coloured(apart / peak if peak > 0 else apart))


def spectrogram(wave: Tensor) -> Tensor:
    """[C, S] -> level in dB of the channels' mean, [bins, times], low frequencies last, at most `EDGE` times."""
    mono = wave.double().mean(0).nan_to_num(0.0, 0.0, 0.0)
    size = min(_FFT, 2 ** max(2, (mono.numel() // 8).bit_length() - 1))
    hop = max(size // 4, -(-mono.numel() // EDGE))
    padded = F.pad(mono, (0, max(0, size - mono.numel())))
    window = torch.hann_window(size, dtype=torch.float64)
    power = torch.stft(padded, size, hop, window=window, center=False, return_complex=True).abs().square()
    return (10 * power.clamp(min=10 ** (_FLOOR / 10)).log10()).flip(0)


def spectra(native: Tensor | None, reference: Tensor) -> tuple[str | None, str, str | None]:
    """Pictures of the spectrograms of [C, S] on the reference's scale, and of the signal between them on its own."""
    theirs = spectrogram(reference)
    top = float(theirs.max())
    scaled: Callable[[Tensor, float], Tensor] = lambda level, peak: (level - peak + 80) / 80  # noqa: E731
    shown = png(coloured(scaled(theirs, top)))
    if native is None or native.shape != reference.shape:
        return None if native is None else png(coloured(scaled(spectrogram(native), top))), shown, None
    apart = native.double() - reference.double()
    scale = float(apart.abs().nan_to_num(0.0, 0.0, 0.0).max())
    # lifted to its own peak, since a difference of 1e-12 lies below any level that a picture has
    between = spectrogram(apart / scale) if scale > 0 else torch.full_like(theirs, _FLOOR)
    return (
        png(coloured(scaled(spectrogram(native), top))),
        shown,
        png(coloured(scaled(between, float(between.max()) if scale > 0 else 0.0))),
    )
