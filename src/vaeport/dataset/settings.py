"""What is made of a data set, apart from the VAE and the source: all that the bytes of the output depend on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from vaeport.errors import InputError

Layout = Literal["parquet", "webdataset", "safetensors"]
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How items are cut, encoded and written.

    layout          "parquet" in the schema that FastVideo's trainers read, "webdataset" tars, or "safetensors", one
                    latent file per item
    batch           items of one shape that are encoded together, if each takes at most `short` bytes of pixels
    seed            sample the posterior, each item with a seed that comes of this one and its id; None: its mode
    normalize       apply the family's latent normalisation
    size            (height, width) that pictures are scaled to, by their shorter side, and then cropped to the middle
    frames          the first so many of each clip; a shorter one is refused
    fps             frames per second that are taken of each clip, "30000/1001" or "16"
    resample, upmix as `encode_file` has them
    shard_items     items per shard, which is what is committed at once
    shard_bytes     size from which a further file of the same shard is begun
    InputError for a value out of range.
    """

    layout: Layout = "parquet"
    batch: int = 1
    seed: int | None = None
    normalize: bool = False
    size: tuple[int, int] | None = None
    frames: int | None = None
    fps: str | None = None
    resample: bool = False
    upmix: bool = False
    shard_items: int = 64
    shard_bytes: int = 256 * MIB
    short: int = 64 * MIB

    def __post_init__(self) -> None:
        sizes = {"height": self.size[0], "width": self.size[1]} if self.size else {}
        counts = {"batch": self.batch, "shard_items": self.shard_items, "shard_bytes": self.shard_bytes, **sizes}
        if self.frames is not None:
            counts["frames"] = self.frames
        for name, value in counts.items():
            if value < 1:
                raise InputError(f"`{name}` is out of range", expected="at least 1", found=value)
        if self.layout not in get_args(Layout):
            expected = ", ".join(get_args(Layout))
            raise InputError("latents are not written in this layout", expected=expected, found=self.layout)
        try:
            good = self.rate is None or self.rate > 0
        except (ValueError, ZeroDivisionError):
            good = False
        if not good:
            raise InputError("`fps` is no rate", expected='a positive number or fraction, "30000/1001"', found=self.fps)

    @property
    def rate(self) -> Fraction | None:
        """`fps` as a number."""
        return None if self.fps is None else Fraction(self.fps)

    def seed_of(self, key: str) -> int | None:
        """The seed of one item, which `vaeport encode --sample` takes too; None for the mode."""
        if self.seed is None:
            return None
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:4], "big")

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
