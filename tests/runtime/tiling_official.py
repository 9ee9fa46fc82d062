"""Captures of the official tilings: what the official code makes of tiles, over halves that are cheap and told here.

python -m tests.runtime.tiling_official [NAME ...] [--check] [--cache DIR] [--mirror OWNER/NAME=GITDIR ...]

The official classes cut, blend and join; their networks are replaced by `Encoding` and `Decoding`, whose every output
depends on the whole tile and on its place in it, so that a tile that is cut elsewhere is another tile. Compressions and
tiles are small, so that outputs are whole in the file.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.golden.command import command
from tests.golden.official import checkout, importable, source
from tests.golden.oracles import ORACLES
from tests.layers.laws import normal
from vaeport.configs import AxisRule
from vaeport.errors import ProofError
from vaeport.proof.precision import Float64Mode
from vaeport.runtime.tiling import Axes, Axis, Policy, Ramps, Trapezoids

AGREEMENT = 1e-12
STORED = 1
"""channels: the others are made of it"""


def _in_place(y: Tensor) -> Tensor:
    """y with a slope along each of its last three axes, and scaled with its mean."""
    slopes = [torch.linspace(0, 1, n, dtype=y.dtype).view(-1, *(1,) * (2 - i)) for i, n in enumerate(y.shape[2:])]
    return y * (1 + y.mean()) + 0.1 * slopes[0] + 0.2 * slopes[1] + 0.3 * slopes[2]


class Encoding(nn.Module):
    """[B, C, T, H, W] -> [B, 2, 1 + (T - 1) // time, H // space, W // space]; a mean over blocks, frame 0 alone."""

    def __init__(self, time: int, space: int) -> None:
        super().__init__()
        self.time, self.space = time, space

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        frames = x[:, :, : 1 + (x.shape[2] - 1) // self.time * self.time]
        frames = torch.cat((frames[:, :, :1].expand(-1, -1, self.time - 1, -1, -1), frames), 2)
        pooled = nn.functional.avg_pool3d(frames.mean(1, keepdim=True), (self.time, self.space, self.space))
        return _in_place(torch.cat((pooled, pooled.square()), 1))


class Decoding(nn.Module):
    """[B, C, n, h, w] -> [B, channels, 1 + time (n - 1), space h, space w]; every position repeated, frame 0 once."""

    def __init__(self, time: int, space: int, channels: int) -> None:
        super().__init__()
        self.time, self.space, self.channels = time, space, channels

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        frames = z.mean(1, keepdim=True).repeat_interleave(self.time, 2)[:, :, self.time - 1 :]
        return _in_place(frames.repeat_interleave(self.space, 3).repeat_interleave(self.space, 4)).expand(
            -1, self.channels, -1, -1, -1
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiling at given sizes; of its input, only the shape is kept.

    time, space     the compression
    tiles           tile and stride of time, height and width, in frames and pixels
    off             axes that are not cut
    """

    repo: str
    way: str
    shape: tuple[int, ...]
    time: int
    space: int
    tiles: tuple[tuple[int, int], ...]
    off: tuple[str, ...] = ()

    @property
    def x(self) -> Tensor:
        """The input."""
        return normal(*self.shape)

    @property
    def half(self) -> nn.Module:
        """What runs per tile."""
        channels = 3 if "LTX" in self.repo else 1
        return Encoding(self.time, self.space) if self.way == "encode" else Decoding(self.time, self.space, channels)

    @property
    def rules(self) -> tuple[AxisRule, ...]:
        """Of the axes."""
        space = (AxisRule(name=name, multiple=self.space) for name in ("height", "width"))
        return (AxisRule(name="time", multiple=self.time, offset=1), *space)

    @property
    def policy(self) -> Policy:
        """The same tiling as data."""
        names = ("time", "height", "width")
        cut = {n: Axis(tile=t, stride=s) for n, (t, s) in zip(names, self.tiles, strict=True) if n not in self.off}
        axes = Axes(**cut)
        if "LTX" in self.repo:
            return Trapezoids(source=self.repo, encode=axes, decode=axes)
        return Ramps(source=self.repo, encode=axes, decode=axes, crops=False)


LTX, HUNYUAN = "Lightricks/LTX-2", "Tencent-Hunyuan/HunyuanVideo"
GAMECRAFT = "Tencent-Hunyuan/Hunyuan-GameCraft-1.0"


def _ltx2() -> dict[str, Case]:
    small: dict[str, Any] = {"repo": LTX, "way": "decode", "time": 2, "space": 2}
    wide: dict[str, Any] = {"repo": LTX, "way": "encode", "time": 8, "space": 32}
    most = ((32, 16), (128, 64), (96, 32))
    return {
        "decode": Case(**small, shape=(1, 4, 7, 6, 8), tiles=((6, 4), (6, 4), (8, 4))),
        "decode_deep": Case(**small, shape=(1, 4, 7, 6, 4), tiles=((8, 2), (8, 2), (6, 4))),
        "decode_time": Case(**small, shape=(1, 4, 7, 3, 3), tiles=((6, 4),) * 3, off=("height", "width")),
        "decode_space": Case(**small, shape=(1, 4, 3, 6, 5), tiles=((6, 4),) * 3),
        "decode_within": Case(**small, shape=(1, 4, 3, 3, 3), tiles=((6, 4),) * 3),
        "encode": Case(**wide, shape=(1, 3, 57, 224, 160), tiles=most),
        "encode_odd": Case(**wide, shape=(1, 3, 60, 240, 170), tiles=most),
    }


def _causal_3d(repo: str) -> dict[str, Case]:
    ways = {"encode": ((1, 3, 23, 22, 18), (1, 3, 8, 8, 8)), "decode": ((1, 4, 8, 9, 7), (1, 4, 4, 4, 4))}
    return {
        f"{way}{name}": Case(repo=repo, way=way, shape=shape, time=2, space=2, tiles=((8, 6),) * 3, off=off)
        for way, (long, short) in ways.items()
        for name, shape, off in (
            ("", long, ()),
            ("_time", (*long[:3], *short[3:]), ("height", "width")),
            ("_space", (*long[:2], short[2], *long[3:]), ("time",)),
            ("_within", short, ()),
        )
    }


CASES = {
    "ltx2": _ltx2(),
    "hunyuan_video": _causal_3d(HUNYUAN),
    "gamecraft": {key: case for key, case in _causal_3d(GAMECRAFT).items() if key in ("encode", "decode")},
}
"""By native model and name."""


def run_hunyuan(case: Case) -> Tensor:
    """The official class, but its networks."""
    package = "hymm_sp" if case.repo == GAMECRAFT else "hyvideo"
    module = importlib.import_module(f"{package}.vae.autoencoder_kl_causal_3d")
    blocks = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    kinds = {"down_block_types": ("DownEncoderBlockCausal3D",) * 4, "up_block_types": ("UpDecoderBlockCausal3D",) * 4}
    model = module.AutoencoderKLCausal3D(**blocks, **kinds)
    model.use_trt_decoder = False
    model.encoder = model.decoder = case.half
    model.quant_conv = model.post_quant_conv = nn.Identity()
    (frames, _), (size, _), _ = case.tiles
    model.tile_sample_min_tsize, model.tile_latent_min_tsize = frames, frames // case.time
    model.tile_sample_min_size, model.tile_latent_min_size = size, size // case.space
    model.enable_temporal_tiling("time" not in case.off)
    model.enable_spatial_tiling("height" not in case.off)
    return model.encode(case.x).latent_dist.parameters if case.way == "encode" else model.decode(case.x).sample


def run_ltx2(case: Case) -> Tensor:
    """The official classes' own tiling, without their networks."""
    from ltx_core.model.video_vae.video_vae import ConvVideoDecoder, VideoEncoder
    from ltx_core.tiling import DimensionSizeConfig, TileSizeConfig
    from ltx_core.types import SpatioTemporalScaleFactors

    names = ("frames", "height", "width")
    off = {"frames" if name == "time" else name for name in case.off}
    sizes = {n: DimensionSizeConfig(t, t - s) for n, (t, s) in zip(names, case.tiles, strict=True) if n not in off}
    of = VideoEncoder if case.way == "encode" else ConvVideoDecoder
    model: Any = of.__new__(of)
    nn.Module.__init__(model)
    model.network = case.half
    model.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    model.forward = lambda x, *conditions: model.network(x)
    factors = SpatioTemporalScaleFactors(time=case.time, height=case.space, width=case.space)
    model.video_scale_factors = model.video_downscale_factors = factors
    model.latent_channels = 2
    if case.way == "encode":
        return model.tiled_encode(case.x, TileSizeConfig(**sizes))
    return torch.cat(list(model.tiled_decode(case.x, TileSizeConfig(**sizes))), 2)


@contextlib.contextmanager
def default_float64() -> Iterator[None]:
    """Tensors without a type of their own are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def captured(name: str) -> dict[str, Tensor]:
    """The outputs of a model's cases, as they are committed."""
    return load_file(_file(name))


def _file(name: str) -> Path:
    return Path(__file__).with_name(f"tiling_{name}.safetensors")


def make(name: str, cache: Path, mirrors: Mapping[str, Path], *, check_only: bool) -> str:
    """Run the cases of one model and write them, or compare them with what is committed."""
    cases = CASES[name]
    origin = source(next(iter(cases.values())).repo)
    oracle = next(oracle for oracle in ORACLES.values() if oracle.repo == origin.repo)
    root = checkout(origin, cache, mirrors.get(origin.repo))
    run = run_ltx2 if origin.repo == LTX else run_hunyuan
    with (
        importable(root / oracle.import_root, oracle.stand_ins),
        torch.no_grad(),
        default_float64(),
        contextlib.redirect_stdout(sys.stderr),
        Float64Mode(),
    ):
        outputs = {key: run(case)[:, :STORED].contiguous() for key, case in cases.items()}
    if check_only:
        worst = max(float((value - captured(name)[key]).abs().max()) for key, value in outputs.items())
        if not worst <= AGREEMENT:
            raise ProofError("an output differs from the committed one", where=name, found=f"{worst:.1e}")
        return f"agrees with the committed capture, worst {worst:.1e}"
    save_file(outputs, _file(name), {"repo": origin.repo, "commit": origin.commit, "torch": torch.__version__})
    return f"{len(outputs)} cases, {_file(name).stat().st_size / 1000:.0f} kB"


if __name__ == "__main__":
    command(__doc__, CASES, make)
