"""What a VAE is (`VAEArchConfig`), how it is loaded and run (`VAEConfig`), what its latents mean (`LatentContract`)."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

from vaeport.errors import ConfigError
from vaeport.shapes import Assumed as Assumed
from vaeport.shapes import Determined as Determined
from vaeport.shapes import WeightShapes as WeightShapes

Modality = Literal["image", "video", "audio"]


@dataclass(frozen=True, kw_only=True)
class VAEArchConfig:
    """The constants of one architecture, read from and written to a published `config.json`.

    Defaults are those that the published class itself assumes for a missing key. Keys that no field knows are kept in
    `extra` and written back.
    """

    class_names: ClassVar[tuple[str, ...]] = ()
    """`_class_name` values under which configurations of this architecture are published; the first is written."""
    renames: ClassVar[Mapping[str, str]] = {}
    """Published key -> field, where the two differ."""

    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """Why a configuration with one of `class_names` is another architecture's after all, or None if it is ours."""
        return None

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """Fields with the values that the shapes of weights show, each right after the lookups that show it.

        An empty value (None, 0, ()) is not shown, unless it is `Determined`. Fields that no shape can show are left
        out, or are `Assumed` where the default may disagree with those that are shown. Works with either half alone.
        """
        yield from ()

    def constants(self) -> dict[str, Any]:
        """Published keys whose value this architecture fixes; another value in a config.json is refused."""
        return {}

    def derived(self) -> dict[str, Any]:
        """Published keys whose value follows from the fields; written unless a config.json states another."""
        return {}

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Reads a `config.json`; ConfigError names the key that is mistyped or has a value that is not supported."""
        hints = typing.get_type_hints(cls)
        names = {f.name for f in fields(cls)} - {"extra"}
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in published.items():
            name = cls.renames.get(key, key)
            if name not in names:
                extra[key] = value
                continue
            values[name] = tuple(value) if isinstance(value, list) else value
            if not _is_a(values[name], hints[name]):
                raise ConfigError(
                    f"`{key}` has a value of the wrong type",
                    where=f"config.json of {cls.class_names[0]}",
                    expected=hints[name],
                    found=repr(value),
                )
            if not _is_positive(values[name], hints[name]):
                raise ConfigError(
                    f"`{key}` must be positive", where=f"config.json of {cls.class_names[0]}", found=repr(value)
                )
        missing = [
            f.name
            for f in fields(cls)
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values
        ]
        if missing:
            raise ConfigError(f"config.json of {cls.class_names[0]} lacks {', '.join(missing)}")
        if extra.get("_class_name") == cls.class_names[0]:
            del extra["_class_name"]
        arch = cls(**values, extra=extra)
        for key, wanted in arch.constants().items():
            found = extra.pop(key, wanted)
            if (tuple(found) if isinstance(found, list) else found) != (
                tuple(wanted) if isinstance(wanted, list) else wanted
            ):
                raise ConfigError(
                    f"`{key}` has a value that this architecture does not have",
                    where=f"config.json of {cls.class_names[0]}",
                    expected=wanted,
                    found=found,
                    fix="port it as an architecture of its own; no flag turns one into the other",
                )
        for key, value in arch.derived().items():
            if extra.get(key) in (None, value):
                extra.pop(key, None)
        return arch

    def to_published(self) -> dict[str, Any]:
        """The `config.json` that `from_published` reads back to an equal value."""
        foreign = {name: key for key, name in self.renames.items()}
        known = {foreign.get(f.name, f.name): getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        both = {"_class_name": self.class_names[0], **self.constants(), **self.derived(), **known, **self.extra}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in both.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


def require_statistics(channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """ConfigError unless latents_mean and latents_std have one value per latent channel, the latter positive."""
    for name, values in (("latents_mean", mean), ("latents_std", std)):
        found = "none" if values is None else len(values)
        if found != channels:
            raise ConfigError(f"{name} must have one value per latent channel", expected=channels, found=found)
    if std is not None and not min(std) > 0:
        raise ConfigError("latents_std must be positive", found=std)


def _is_a(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(v, args[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_positive(value: Any, hint: Any) -> bool:
    """Whole numbers are sizes and counts, so at least 1, and a list has at least one of them."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, arg) and _is_positive(value, arg) for arg in args)
    if origin is tuple:
        return args[0] is not int or (value != () and min(value) > 0)
    return hint is not int or value > 0


@dataclass(kw_only=True)
class VAEConfig:
    """How a VAE is loaded and run; no field but those of tiling changes what its two networks compute.

    latents                         "raw": `encode` gives and `decode` takes latents as Diffusers' classes do, and the
                                    caller normalises; "normalized": as the diffusion model sees them, as the official
                                    classes of Wan and LTX do
    load_encoder, load_decoder      a half that is False is never read from the file
    tiling                          name of a published tiling ("official", "diffusers", ...), which is approximate;
                                    None: exact
    use_tiling, use_temporal_tiling, use_parallel_tiling
                                    what the exact plans of `ParallelTiledVAE` may cut: space, time, and over ranks;
                                    with none set, space and time
    dtype                           "float32", "bfloat16", ...; None keeps the checkpoint's
    encoder_dtype, decoder_dtype    of one half; None: `dtype`
    precision                       "high": faster kernels that sum in another order, rounding no more often; "exact":
                                    the layers as they are written
    use_graphs                      images, waveforms and pieces of streams run by CUDA graphs from the second of a
                                    shape on, which keep the memory of that run
    pretrained_path, subfolder, revision, variant
                                    where the weights came from
    """

    modality: ClassVar[Modality | None] = None

    latents: Literal["raw", "normalized"] = "raw"
    load_encoder: bool = True
    load_decoder: bool = True
    tiling: str | None = None
    use_tiling: bool = False
    use_temporal_tiling: bool = False
    use_parallel_tiling: bool = False
    dtype: str | None = None
    encoder_dtype: str | None = None
    decoder_dtype: str | None = None
    precision: Literal["exact", "high"] = "high"
    use_graphs: bool = False
    pretrained_path: str | None = None
    subfolder: str | None = None
    revision: str | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        """ConfigError for a request that cannot be kept."""
        if self.latents not in ("raw", "normalized"):
            expected = '"raw" or "normalized"'
            raise ConfigError("unknown convention of latents", expected=expected, found=repr(self.latents))
        if not (self.load_encoder or self.load_decoder):
            raise ConfigError("load_encoder and load_decoder are both False", fix="load at least one half")
        flags = ("use_tiling", "use_temporal_tiling", "use_parallel_tiling")
        asked = [name for name in ("tiling", *flags) if getattr(self, name)]
        if asked and self.modality == "audio":
            raise ConfigError(
                f"{', '.join(asked)}: audio is never tiled", fix="stream it: `vae.stream_decode(...)` is exact"
            )
        if self.use_temporal_tiling and not (self.use_tiling or self.tiling):
            raise ConfigError("use_temporal_tiling has no effect without use_tiling", fix="set both")
        if self.tiling and len(asked) > 1:
            raise ConfigError("tiling names the axes by itself", found=", ".join(asked), fix="leave the flags off")


class ImageVAEConfig(VAEConfig):
    """Bucket of VAEs for [B, C, H, W]."""

    modality = "image"


class VideoVAEConfig(VAEConfig):
    """Bucket of VAEs for [B, C, T, H, W]."""

    modality = "video"


class AudioVAEConfig(VAEConfig):
    """Bucket of VAEs for [B, C, samples]."""

    modality = "audio"


BUCKETS: Mapping[Modality, type[VAEConfig]] = {
    "image": ImageVAEConfig,
    "video": VideoVAEConfig,
    "audio": AudioVAEConfig,
}
"""The config class of every modality, from which a model's `config_class` derives."""


@dataclass(frozen=True, kw_only=True)
class AxisRule:
    """One axis of the input: the legal lengths offset + multiple * k give offset + k latents; offset is 0 or 1."""

    crops: ClassVar[bool] = True
    """Whether other lengths are taken, as the latents that `latents` counts."""

    name: str
    multiple: int
    offset: int = 0

    @property
    def least(self) -> int:
        """The shortest input that gives a latent."""
        return self.padded(1)

    def latents(self, n: int) -> int:
        """Latents of an input of length n; what is over the last legal length is dropped."""
        return (n - self.offset) // self.multiple + self.offset if n >= self.offset else 0

    def decoded(self, latents: int) -> int:
        """Length of the decoded output."""
        return (latents - self.offset) * self.multiple + self.offset

    def padded(self, n: int) -> int:
        """The shortest legal length that holds n >= 1."""
        steps = -(-(n - self.offset) // self.multiple)
        return self.offset + max(steps, 1 - self.offset) * self.multiple


class StrictAxisRule(AxisRule):
    """As above; other lengths are refused, since the published code fails on them."""

    crops = False


class CeilAxisRule(AxisRule):
    """As `AxisRule`; what is over a legal length counts as one latent more."""

    @property
    def least(self) -> int:
        """One position counts as a latent."""
        return 1

    def latents(self, n: int) -> int:
        """Latents of an input of length n."""
        return super().latents(self.padded(n)) if n > 0 else 0


@dataclass(frozen=True, kw_only=True)
class LatentContract:
    """What goes into `encode`, what a latent is, and what comes out of `decode`. Data: the tests execute it.

    channels            of input and output; their values lie in value_range
    axes                rules of the input's axes, in order; latents have the same axes
    latent_channels     of a latent
    posterior           "gaussian-logvar" or "gaussian-softplus"
    shift, scale        normalize(z) = (z - shift) * scale, one number or one per latent channel; None: the checkpoint
                        holds a mean and a standard deviation per channel
    clamp               range that `decode` clamps to, or None
    sample_rate         Hz, audio only
    decode_timestep     what `decode` tells a decoder that knows a timestep, or None
    decode_noise_scale  share of noise that such a decoder expects in its latents, or None
    """

    modality: Modality
    channels: int
    value_range: tuple[float, float] = (-1.0, 1.0)
    axes: tuple[AxisRule, ...]
    latent_channels: int
    posterior: Literal["gaussian-logvar", "gaussian-softplus"]
    shift: float | tuple[float, ...] | None = 0.0
    scale: float | tuple[float, ...] | None = 1.0
    clamp: tuple[float, float] | None = None
    sample_rate: int | None = None
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None

    @property
    def layout(self) -> str:
        """Names of the input's and the latent's axes."""
        return {"image": "B C H W", "video": "B C T H W", "audio": "B C S"}[self.modality]

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the latent of an input of shape [B, C, *axes]."""
        return (shape[0], self.latent_channels, *(a.latents(n) for a, n in zip(self.axes, shape[2:], strict=True)))

    def decoded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output decoded from a latent of shape [B, Z, *axes]."""
        return (shape[0], self.channels, *(a.decoded(n) for a, n in zip(self.axes, shape[2:], strict=True)))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return typing.cast("dict[str, Any]", _plain(asdict(self)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
