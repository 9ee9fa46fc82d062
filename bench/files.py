"""Files beside what the device does alone: `decode_file` and the decode, `encode_file` and the encode.

    python -m bench.files --device cpu|cuda [--quick] [--graphs] [--sink mp4|raw|null] [--preset NAME] [--frames N]
                          [--json-out FILE]

Wan 2.1 with drawn weights, on 81 frames (`--frames`) of 480 x 832, or narrow on a few small ones. `mp4` goes through
files that users write and read, which needs PyAV. `raw` writes the frames as bytes and `null` drops them, through the
same threads and copies; both encode frames that lie in memory. Medians of runs in turns; the last line is one JSON
object. Exit code 1 if a file takes more than 1.1 times what the device takes, on a GPU.

The latents are waves that travel: what drawn weights make of them takes x264 about twice the bytes of a natural clip,
and what they make of noise nine times (narrow, 21 frames of 240 x 416).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench import report
from bench.drawn import drawn
from bench.timing import seconds_of
from bench.work import QUICK_WAN, WAN
from vaeport.errors import VaeportError
from vaeport.media import LatentHeader, Source, VideoReader, VideoWriter, read_latents, write_latents
from vaeport.registry import ModelRegistry
from vaeport.runtime.files import as_pixels, clips, decode_file, decoded_pieces, encode_file, encoded_parts
from vaeport.runtime.inputs import Input, VideoInput
from vaeport.runtime.overlap import handover

MOST = 1.1
RATE = Fraction(24)
SINKS = ("mp4", "raw", "null")
Runs = dict[str, Callable[[], Any]]


class Held(VideoInput):
    """Frames in memory, uint8 [n, H, W, 3], as a clip that is read while it is encoded."""

    def __init__(self, vae: Any, frames: Tensor) -> None:
        Input.__init__(self, vae, Path("memory"))
        self.reader: Any = SimpleNamespace(chunks=self._chunks, rate=RATE, notes=[], close=lambda: None)
        self.total, self.height, self.width, _ = frames.shape
        self.held, self.frames = frames, 0

    def _chunks(self, first: int, size: int, *, pin: bool) -> Iterator[Tensor]:
        for part in (self.held[:first], *self.held[first:].split(size)):
            yield part.pin_memory() if pin else part.clone()


class Work:
    """A VAE with a clip that it encodes, and latents that it decodes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.sink, self.preset, self.folder = options.sink, options.preset, folder
        self.device = torch.device(options.device)
        dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
        self.model, shape = (QUICK_WAN, (9, 32, 48)) if options.quick else (WAN, (options.frames, 480, 832))
        self.vae = drawn(self.model, dtype, self.device, graphs=options.graphs)
        self.frames = moving_picture(*shape)
        self.latents = moving_latents(self.vae.contract.latent_shape((1, 3, *shape))).to(self.device, dtype)
        self.file, self.clip = folder / "z.safetensors", folder / "in.mp4"
        write_latents(self.file, self.latents, self._header())
        self.decoded = torch.cat([as_pixels(x[0].float()).cpu() for x in clips(self._pieces(), *shape[1:])])
        if self.sink == "mp4":
            with VideoWriter(self.clip, rate=RATE, width=shape[2], height=shape[1], preset=self.preset) as video:
                video.write(self.frames)
        self.about: dict[str, Any] = {"model": self.model.label, "frames": list(shape), "dtype": str(dtype)[6:]}
        self.about |= {"device": options.device, "sink": self.sink, "preset": self.preset, "graphs": options.graphs}

    def decoding(self) -> Runs:
        """The decode on the device alone, to a file, and the writing alone."""
        return {"device": self._decode, "file": self._decode_to_file, "other": self._write}

    def encoding(self) -> Runs:
        """The encode of what lies on the device, of a file, and the reading alone."""
        x = self.frames.to(self.device).movedim(-1, 0)[None].to(self.latents.dtype).div_(127.5).sub_(1)
        pieces = [x[:, :, :1], *x[:, :, 1:].split(4, 2)]
        return {"device": lambda: self._encode(pieces), "file": self._encode_file, "other": self._read}

    def _decode(self) -> None:
        for _ in self.vae.stream_decode(self.latents.split(1, 2)):
            pass

    def _decode_to_file(self) -> None:
        if self.sink == "mp4":
            decode_file(self.vae, self.file, self.folder / "out.mp4", preset=self.preset)
            return
        with self._writer() as write, handover(write, as_pixels) as put:
            for piece in clips(self._pieces(), *self.frames.shape[1:3]):
                put(piece)

    def _write(self) -> None:
        with self._writer() as write:
            for part in self.decoded.split(4):
                write(part)

    @contextmanager
    def _writer(self) -> Iterator[Callable[[Tensor], Any]]:
        height, width = self.frames.shape[1:3]
        if self.sink == "mp4":
            out = self.folder / "out.mp4"
            with VideoWriter(out, rate=RATE, width=width, height=height, preset=self.preset) as video:
                yield video.write
        elif self.sink == "raw":
            with (self.folder / "out.raw").open("wb") as raw:
                yield lambda pixels: raw.write(pixels.numpy().data)
        else:
            yield lambda pixels: None

    def _encode(self, pieces: Sequence[Tensor]) -> None:
        for posterior in self.vae.stream_encode(pieces):
            posterior.mode()

    def _encode_file(self) -> None:
        if self.sink == "mp4":
            encode_file(self.vae, self.clip, self.folder / "again.safetensors")
            return
        with Held(self.vae, self.frames) as media:
            latents = torch.cat(encoded_parts(self.vae, media), 2)
        write_latents(self.folder / "again.safetensors", latents, self._header())

    def _read(self) -> None:
        if self.sink == "mp4":
            with VideoReader(self.clip) as reader:
                for _ in reader.chunks(1, 4):
                    pass

    def _pieces(self) -> Iterator[Tensor]:
        return decoded_pieces(self.vae, *read_latents(self.file), None)

    def _header(self) -> LatentHeader:
        frames, height, width, _ = self.frames.shape
        return LatentHeader(
            model=ModelRegistry.find_class(type(self.vae)).name,
            class_name=type(self.vae).__name__,
            contract=self.vae.contract.to_json(),
            posterior="mode",
            normalized=False,
            source=Source(modality="video", frames=frames, height=height, width=width, rate=str(RATE), pad={}),
            dtype=str(self.latents.dtype).removeprefix("torch."),
            weights_hash="0" * 64,
        )


def moving_picture(frames: int, height: int, width: int) -> Tensor:
    """Coloured waves that travel under a grain, uint8 [frames, height, width, 3]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grain = torch.randn(height, width, 3, generator=torch.Generator().manual_seed(0)) * 4
    made = torch.empty(frames, height, width, 3, dtype=torch.uint8)
    for t in range(frames):
        waves = (torch.sin(x / 29 + t / 7), torch.cos(y / 31 - t / 9), torch.sin((x + y) / 47 - t / 8))
        made[t] = (127 + 100 * torch.stack(waves, -1) + grain.roll(t, 1)).clamp(0, 255).to(torch.uint8)
    return made


def moving_latents(shape: Sequence[int]) -> Tensor:
    """Waves that travel, of another length and direction in each channel, [1, Z, t, h, w]."""
    _, channels, *sizes = shape
    t, y, x = torch.meshgrid(*map(torch.arange, sizes), indexing="ij")
    turn = [x / (7 + k % 5) + y / (9 + k % 3) * (-1) ** k + t / (4 + k % 4) + k for k in range(channels)]
    return torch.stack(turn)[None].sin()


def seconds(runs: Runs, device: torch.device, repeats: int) -> dict[str, float]:
    """The median of each, in turns, after a first run that does not count; `ratio`: the file's to the device's."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            taken[name].append(seconds_of(run, device)[1])
    found = {name: statistics.median(times[1:]) for name, times in taken.items()}
    return {name: round(value, 4) for name, value in (found | {"ratio": found["file"] / found["device"]}).items()}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.files", description="files beside the device alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--graphs", action="store_true", help="pieces and pictures by CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="a narrow model, a small clip")
    parser.add_argument("--sink", choices=SINKS, default="mp4")
    parser.add_argument("--preset", help="of x264")
    parser.add_argument("--frames", type=int, default=81, help="of the clip at full width, 4k + 1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    options = parsed(arguments)
    found: dict[str, Any] = {"bench": "files", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    found |= report.machine([options.device])
    with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as folder, torch.no_grad():
        try:
            work = Work(options, Path(folder))
            found |= work.about
            for name, runs in (("decode", work.decoding()), ("encode", work.encoding())):
                row = found[name] = seconds(runs, work.device, options.repeats)
                other = "writing" if name == "decode" else "reading"
                print(
                    f"{name}: device alone {row['device']:.3f} s, {other} alone {row['other']:.3f} s, "
                    f"file {row['file']:.3f} s, {row['ratio']:.3f} of the device"
                )
        except VaeportError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        if work.sink == "mp4":
            found["mp4_kib"] = (work.folder / "out.mp4").stat().st_size // 1024
    line = json.dumps(found, allow_nan=False)
    if options.json_out:
        options.json_out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(line)
    slow = any(found[name]["ratio"] > MOST for name in ("decode", "encode"))
    return int(options.device == "cuda" and not options.quick and slow)


if __name__ == "__main__":
    sys.exit(main())
