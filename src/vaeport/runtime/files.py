"""Files to latents and back: `encode_file`, `decode_file`, `compare_files`.

Video and audio are read, run and written piece by piece, each in a thread of its own, so that the device does not wait
and memory does not grow with their length. Lengths and sizes that the model's rule does not allow are padded at their
end, which the latent file records and decoding cuts off again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaeport.errors import InputError, LatentFileError, MediaError
from vaeport.layers import DiagonalGaussian
from vaeport.layers.layer import Interval
from vaeport.media import (
    AudioWriter,
    LatentHeader,
    VideoWriter,
    preset_of,
    read_latents,
    to_pixels,
    write_image,
    write_latents,
)
from vaeport.registry import ModelRegistry
from vaeport.runtime.finite import NotFiniteError, overflow
from vaeport.runtime.inputs import IMAGES, Input, open_input
from vaeport.runtime.overlap import Ahead, handover
from vaeport.runtime.parallel import ParallelTiledVAE
from vaeport.runtime.plan import Half
from vaeport.vae import VAE

Progress = Callable[[int, int | None], None]
"""Called with positions done, and their total if it is known: frames, samples, or 1 for an image."""

FRAMES = 16
"""decoded frames that become pixels at a time"""
as_pixels = partial(to_pixels, check=False)
"""[3, n, H, W] -> uint8 [n, H, W, 3], for `handover`, which looks whether it is finite"""


@dataclass(frozen=True)
class FileReport:
    """What was written: shape of the latent or sizes of the media, and notes on how, and on all that was adapted."""

    file: Path
    shape: tuple[int, ...]
    notes: tuple[str, ...]


def encode_file(
    vae: VAE,
    source: str | Path,
    target: str | Path,
    *,
    seed: int | None = None,
    normalize: bool = False,
    resample: bool = False,
    upmix: bool = False,
    budget: int | str | None = None,
    progress: Progress | None = None,
) -> FileReport:
    """Encodes an image, video or audio file into a latent file.

    seed        sample the posterior with this seed instead of taking its mode
    normalize   apply the family's latent normalisation
    resample    convert audio of another sample rate, which is an error otherwise
    upmix       use a mono recording for every channel, which is an error otherwise
    budget      memory beside the weights and the media, which is then held whole: bytes or "4GiB"; None: pieces of time
                as the model runs by itself

    Raises MediaError, LatentFileError, InputError or BlockedError; the target appears whole or not at all. Latents that
    are not finite are an InputError that names the layer which overflowed.
    """
    generator = None if seed is None else torch.Generator(vae.device).manual_seed(seed)
    opened = {"resample": resample, "upmix": upmix}
    with open_input(vae, Path(source), **opened) as media, Ahead(_encoder_hash(vae), 1) as encoder_hash:
        try:
            parts = encoded_parts(vae, media, generator, progress, budget)
        except NotFiniteError as found:
            with open_input(vae, Path(source), **opened) as again:
                raise _overflow(vae, "encoder", again.pieces(), found.positions, source) from None
        if not parts:
            raise MediaError("nothing to encode", where=source, expected="at least one frame or sample", found="none")
        latents = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        latents = vae.normalize(latents) if normalize else latents
        # some are so already
        normalized = normalize or vae.config.latents == "normalized"
        header = LatentHeader(
            model=ModelRegistry.find_class(type(vae)).name,
            class_name=type(vae).__name__,
            contract=vae.contract.to_json(),
            posterior="mode" if generator is None else "sample",
            normalized=normalized,
            source=media.source(),
            dtype=str(latents.dtype).removeprefix("torch."),
            weights_hash=next(encoder_hash),
        )
    write_latents(target, latents, header)
    return FileReport(Path(target), tuple(latents.shape), tuple(media.notes))


def decode_file(
    vae: VAE,
    source: str | Path,
    target: str | Path,
    *,
    budget: int | str | None = None,
    preset: str | None = None,
    progress: Progress | None = None,
) -> FileReport:
    """Decodes a latent file into an image, video or audio file of exactly the size and length that was encoded.

    budget      memory beside the weights: bytes or "4GiB"; None: pieces of time as the model runs by itself
    preset      of x264, for `.mp4`: "medium", ...; None: "superfast"

    Raises LatentFileError for latents of another model or contract, or that are not finite; MediaError, InputError or
    BlockedError; the target appears whole or not at all. Media that is not finite is an InputError that names the layer
    which overflowed.
    """
    preset_of(target, preset)
    latents, header = read_latents(source)
    header.require(vae.contract.to_json(), ModelRegistry.find_class(type(vae)).name)
    try:
        pieces = decoded_pieces(vae, latents, header, progress, budget)
        return _written(Path(target), pieces, header.source, vae.contract.channels, preset)
    except NotFiniteError as found:
        z = as_decoded(vae, latents, header)
        pieces = iter((z,) if vae.contract.modality == "image" else z.split(_step(vae), 2))
        raise _overflow(vae, "decoder", pieces, found.positions, source) from None


def named(source: str | Path) -> Path:
    """The file that a latent file is decoded into by default, in the current folder; LatentFileError if it is none."""
    _, header = read_latents(source)
    suffix = {"image": ".png", "video": ".mp4", "audio": ".wav"}[header.source["modality"]]
    return Path(f"{Path(source).stem}-decoded{suffix}")


def compare_files(
    vae: VAE, source: str | Path, latent_file: str | Path, *, resample: bool = False, upmix: bool = False
) -> dict[str, object]:
    """Decodes a latent file next to the file it was made from: positions of both, and the signal-to-noise ratio in dB.

    The ratio is peak (2.0, the width of the value range) for pictures and the signal's own power for audio; None if
    they are equal. MediaError if the file has become shorter, or the decoded media is not finite.
    """
    latents, header = read_latents(latent_file)
    header.require(vae.contract.to_json(), ModelRegistry.find_class(type(vae)).name)
    noise = power = 0.0
    count = positions = expected = 0
    with open_input(vae, Path(source), resample=resample, upmix=upmix) as media:
        original = _Cursor(media.unpadded())
        for piece in decoded_pieces(vae, latents, header, None):
            same = original.take(piece.shape[2] if media.streams else piece.shape[0])
            positions += piece.shape[2] if media.streams else piece.shape[0]
            noise += (piece - same).double().pow(2).sum().item()
            power += same.double().pow(2).sum().item()
            count += piece.numel()
        expected = positions + original.rest()
    if not math.isfinite(noise):
        raise MediaError(
            "the decoded media is not finite", where=latent_file, fix="try float32, and check the checkpoint"
        )
    signal = power / count if header.source["modality"] == "audio" else 4.0
    ratio = None if noise == 0 else round(10 * math.log10(max(signal, 1e-300) / (noise / count)), 2)
    return {
        "positions": positions,
        "expected": expected,
        "complete": positions == expected,
        "signal_to_noise_db": ratio,
    }


def as_decoded(vae: VAE, latents: Tensor, header: LatentHeader) -> Tensor:
    """Latents of a file as `vae.decode` takes them; LatentFileError if they are another model's, or not finite."""
    header.require(vae.contract.to_json(), ModelRegistry.find_class(type(vae)).name)
    z = latents.to(vae.device, vae.half_dtype("decoder"))
    takes_normalized = vae.config.latents == "normalized"
    if header.normalized != takes_normalized:
        z = vae.normalizer.normalize(z) if takes_normalized else vae.normalizer.denormalize(z)
    if not z.isfinite().all():
        stored = bool(latents.isfinite().all())
        what = "the latents are not finite" + (f" in the decoder's {z.dtype}" if stored else "")
        fix = "decode in float32" if stored else "encode again in float32, and check what was done to them since"
        raise LatentFileError(what, expected="finite numbers", found="NaN or infinite values", fix=fix)
    return z


def decoded_pieces(
    vae: VAE, latents: Tensor, header: LatentHeader, progress: Progress | None, budget: int | str | None = None
) -> Iterator[Tensor]:
    """Media [1, C, ...] in pieces, cut to the size and length that was encoded; LatentFileError as `as_decoded`."""
    z, origin = as_decoded(vae, latents, header), header.source
    planned = None if budget is None else ParallelTiledVAE(vae, budget=budget)
    if vae.contract.modality == "image":
        image = (planned or vae).decode(z).sample[..., : origin["height"], : origin["width"]]
        if progress:
            progress(1, 1)
        yield image
        return
    left = total = origin["samples"] if vae.contract.modality == "audio" else origin.get("frames", 1)
    for piece in vae.stream_decode(z.split(_step(vae), 2)) if planned is None else planned.stream_decode(z):
        kept = piece[:, :, :left]
        left -= kept.shape[2]
        if vae.contract.modality == "video":
            kept = kept[..., : origin["height"], : origin["width"]]
        if progress:
            progress(total - left, total)
        if kept.shape[2]:
            yield kept
    if left:
        raise LatentFileError(
            "the latents end before the media does", expected=f"{total} positions", found=total - left
        )


def encoded_parts(
    vae: VAE,
    media: Input,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
    budget: int | str | None = None,
) -> list[Tensor]:
    """The latents of a file in parts along axis 2, on the device, as `encode_file` makes them; NotFiniteError."""
    pieces = _counted(media, progress)
    dists: Iterable[DiagonalGaussian]
    if budget is not None:
        x = torch.cat(list(pieces), 2 if media.streams else 0)
        dists = [ParallelTiledVAE(vae, budget=budget).encode(x).latent_dist]
    else:
        dists = vae.stream_encode(pieces) if media.streams else (vae.encode(x).latent_dist for x in pieces)
    parts: list[Tensor] = []
    with handover() as check:
        for d in dists:
            parts.append(d.mode() if generator is None else d.sample(generator))
            check(parts[-1])
    return parts


def clips(pieces: Iterable[Tensor], height: int, width: int) -> Iterator[Tensor]:
    """Decoded pictures and clips as clips [1, 3, n, H, W] of at most `FRAMES`."""
    for piece in pieces:
        yield from piece.view(1, 3, -1, height, width).split(FRAMES, 2)


def _written(target: Path, pieces: Iterator[Tensor], origin: Any, channels: int, preset: str | None) -> FileReport:
    if origin["modality"] == "audio":
        with AudioWriter(target, rate=origin["sample_rate"], channels=channels) as audio, handover(audio.write) as put:
            for piece in pieces:
                put(piece)
        clipped = f"{audio.clipped} samples were beyond full scale and were clipped"
        return FileReport(target, (channels, origin["samples"]), (clipped,) if audio.clipped else ())
    height, width, frames = origin["height"], origin["width"], origin.get("frames", 1)
    pictures = clips(pieces, height, width)
    if target.suffix.lower() in IMAGES:
        if frames != 1:
            raise MediaError(
                "a clip does not fit into an image", where=target, expected="1 frame", found=f"{frames} frames"
            )
        with handover(lambda pixels: write_image(target, pixels[0]), as_pixels) as put:
            for image in pictures:
                put(image)
        return FileReport(target, (height, width, 3), ())
    rate = Fraction(origin.get("rate", "1"))
    writer = VideoWriter(target, rate=rate, width=width, height=height, preset=preset)
    with writer as video, handover(video.write, as_pixels) as put:
        for clip in pictures:
            put(clip)
    return FileReport(target, (frames, height, width, 3), (video.encoding,))


def _overflow(vae: VAE, name: Half, pieces: Iterable[Tensor], positions: Interval, where: object) -> InputError:
    """The error for a result of one half that is not finite at these positions, from the pieces that it was given."""
    half = vae._half(name)
    with half.register_forward_hook(lambda *_: None):  # layers that are watched run one by one, under their own names
        half = half if name == "encoder" else vae.decoder_at()
    given = pieces if name == "encoder" else map(vae._raw, pieces)
    if vae.contract.modality == "image":
        return overflow(half, given, name=name, where=where)
    of = "latents" if name == "encoder" else "frames" if vae.contract.modality == "video" else "samples"
    at = f"{where}, {of} {positions[0]} to {positions[1] - 1}"
    return overflow(half, given, name=name, axis=vae._stream_axis(), outputs=positions, where=at)


def _encoder_hash(vae: VAE) -> Iterator[str]:
    """The hash of the encoder's weights, which are read on a stream of their own where they lie on a GPU."""
    side = torch.cuda.Stream(vae.device) if vae.device.type == "cuda" else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream(vae.device))

    def made() -> Iterator[str]:
        with nullcontext() if side is None else torch.cuda.stream(side):
            yield vae.weights_hash("encoder")

    return made()


def _step(vae: VAE) -> int:
    """Latents that are decoded at a time."""
    return vae.decode_pieces[1] if vae.decode_pieces else 16


def _counted(media: Input, progress: Progress | None) -> Iterator[Tensor]:
    done = 0
    for piece in media.pieces():
        done += piece.shape[2] if media.streams else 1
        yield piece
        if progress:
            progress(done, media.total)


class _Cursor:
    """Takes any number of positions from pieces of other lengths."""

    def __init__(self, pieces: Iterator[Tensor]) -> None:
        self.pieces = pieces
        self.held: Tensor | None = None

    def take(self, n: int) -> Tensor:
        """The next `n` positions along axis 2, or the next piece whole if it is an image [1, C, H, W]."""
        parts: list[Tensor] = []
        while n > 0:
            if self.held is None:
                self.held = next(self.pieces, None)
            if self.held is None:
                raise MediaError(
                    "the file is shorter than what was encoded", fix="compare with the file that was encoded"
                )
            if self.held.dim() == 4:
                whole, self.held = self.held, None
                return whole
            part, rest = self.held[:, :, :n], self.held[:, :, n:]
            parts.append(part)
            n -= part.shape[2]
            self.held = rest if rest.shape[2] else None
        return torch.cat(parts, 2)

    def rest(self) -> int:
        """How many positions are left."""
        return sum(p.shape[2] for p in ([] if self.held is None else [self.held])) + sum(
            p.shape[2] for p in self.pieces
        )
