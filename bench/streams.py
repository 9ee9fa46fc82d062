"""Memory of streams of growing length; on the CPU each has a process of its own: `python -m bench.streams JSON`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.memory import peak_growth
from bench.parity import Proved
from bench.work import Half, Streamed
from vaeport.configs import LatentContract
from vaeport.runtime.load import load
from vaeport.vae import VAE

# the longest stream may take this much more than the shortest and still count as flat
FLAT = 1.1


@dataclass(frozen=True)
class Stream:
    """One stream: `length` frames or samples, `piece` latents at a time; video frames are of size `frame`."""

    folder: str
    device: str
    dtype: str
    half: Half
    length: int
    piece: int
    frame: tuple[int, ...] = ()

    def measure(self) -> dict[str, Any]:
        """Peak memory in MiB on top of the loaded model, and the number of outputs."""
        vae = load(self.folder, device=self.device, dtype=self.dtype)
        # the first use of an operation loads code and builds tables that stay
        run(vae, self.half, vae.contract.axes[0].decoded(3), 1, tuple(2 * a.multiple for a in vae.contract.axes[1:]))
        outputs: list[int] = []
        peak = peak_growth(
            lambda: outputs.append(run(vae, self.half, self.length, self.piece, self.frame)), self.device
        )
        return {"peak_mib": peak, "outputs": outputs[0]}


@torch.no_grad()
def run(vae: VAE, half: Half, length: int, piece: int, frame: tuple[int, ...]) -> int:
    """Streams random media, or latents of theirs, made piece by piece; drops all outputs and returns their number."""
    inputs = pieces(vae, half, length, piece, frame)
    if half == "encode":
        return sum(posterior.mode().shape[2] for posterior in vae.stream_encode(inputs))
    return sum(sample.shape[2] for sample in vae.stream_decode(inputs))


def pieces(vae: VAE, half: Half, length: int, piece: int, frame: tuple[int, ...]) -> Iterator[Tensor]:
    """The input of a stream. A first frame with a rule of its own is the first piece."""
    rule, space = vae.contract.axes[0], vae.contract.axes[1:]
    generator = torch.Generator(vae.device).manual_seed(0)
    latents = rule.latents(length)
    bounds = [0, *range(rule.offset or piece, latents, piece), latents]
    for start, stop in pairwise(bounds):
        if half == "decode":
            channels, n = vae.contract.latent_channels, stop - start
            size = tuple(a.latents(s) for a, s in zip(space, frame, strict=True))
        else:
            channels, n, size = vae.contract.channels, rule.decoded(stop) - (rule.decoded(start) if start else 0), frame
        x = torch.randn((1, channels, n, *size), generator=generator, device=vae.device, dtype=vae.dtype)
        yield x if half == "decode" else x.clamp_(-1, 1)


def expected(contract: LatentContract, half: Half, length: int) -> int:
    """Number of outputs of a stream."""
    latents = contract.axes[0].latents(length)
    return latents if half == "encode" else contract.axes[0].decoded(latents)


def stream_rows(work: Streamed, proved: Proved) -> Iterator[dict[str, Any]]:
    """A row for each half: the peak at every length, and whether it is flat; no figures without a PASS."""
    for half in work.halves:
        name = f"{work.model.label} stream_{half}, {work.size}"
        row = {"work": name, "device": proved.device, "dtype": work.dtype, "lengths": work.lengths}
        row |= {"peak_mib": None, "flat": None} | proved.summary()
        if not proved.verdict:
            yield row
            continue
        asked = [
            Stream(str(proved.folder), proved.device, work.dtype, half, n, work.piece, work.frame) for n in work.lengths
        ]
        found = [stream.measure() if proved.device != "cpu" else _in_its_own_process(stream) for stream in asked]
        wanted = [expected(work.model.contract, half, n) for n in work.lengths]
        wrong = [
            f"{f['outputs']} outputs instead of {n}" for f, n in zip(found, wanted, strict=True) if f["outputs"] != n
        ]
        if wrong:
            yield row | {"verdict": "FAIL", "reasons": wrong}
            continue
        peaks = [f["peak_mib"] for f in found]
        yield row | {"peak_mib": peaks, "flat": None if None in peaks else max(peaks) <= FLAT * peaks[0]}


def _in_its_own_process(stream: Stream) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.streams", json.dumps(asdict(stream))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise RuntimeError(f"the process of a stream failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(Stream(**asked | {"frame": tuple(asked["frame"])}).measure()))
