"""Which published tilings a model has, by its native name.

Every name also exists with `-spatial` or `-framewise` behind it where a policy cuts both space and time: that part of
it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vaeport.configs import VAEArchConfig, VAEConfig
from vaeport.errors import ConfigError
from vaeport.runtime.tiling.policy import Axes, Axis, Part, Policy
from vaeport.runtime.tiling.ramps import Ramps
from vaeport.runtime.tiling.trapezoids import Trapezoids

SUFFIXES: Mapping[str, Part] = {"spatial": "space", "framewise": "time"}


def autoencoder_kl(arch: Any) -> Policy:
    """Tiles of `sample_size`, which checkpoints state for themselves, with a quarter of overlap."""
    size = arch.sample_size if isinstance(arch.sample_size, int) else arch.sample_size[0]
    axes = Axes.square(Axis(tile=size, stride=int(size * 0.75)))
    return Ramps(source="diffusers AutoencoderKL", encode=axes, decode=axes, crops=False)


def _ramps(source: str, axes: Axes, **fields: Any) -> Callable[[VAEArchConfig], Policy]:
    policy = Ramps(source=source, encode=axes, decode=axes, **fields)
    return lambda arch: policy


_WAN = Axis(tile=256, stride=192)
# The class cuts pixels that it has already folded into channels two by two, with numbers meant for pixels.
_WAN_2_2 = Ramps(
    source="diffusers AutoencoderKLWan",
    encode=Axes.square(Axis(tile=512, stride=384, above=256)),
    decode=Axes.square(Axis(tile=256, stride=192, grain=2)),
)
_HUNYUAN = _ramps(
    "Tencent-Hunyuan/HunyuanVideo hyvideo/vae/autoencoder_kl_causal_3d.py",
    Axes.square(Axis(tile=256, stride=192), time=Axis(tile=64, stride=48)),
    crops=False,
)
_LTX = Axes.square(Axis(tile=512, stride=448), time=Axis(tile=16, stride=8))
_LTX_2 = Axes.square(Axis(tile=768, stride=704), time=Axis(tile=80, stride=56))
_LTX_2_OFFICIAL = Trapezoids(
    source="Lightricks/LTX-2 ltx_core/tiling.py TileSizeConfig.default", encode=_LTX_2, decode=_LTX_2
)

PUBLISHED: Mapping[str, Mapping[str, Callable[[VAEArchConfig], Policy]]] = {
    "autoencoder_kl": {"diffusers": autoencoder_kl},
    "wan": {"diffusers": _ramps("diffusers AutoencoderKLWan", Axes.square(_WAN))},
    "wan2_2": {"diffusers": lambda arch: _WAN_2_2},
    "hunyuan_video": {
        "official": _HUNYUAN,
        "diffusers": _ramps("diffusers AutoencoderKLHunyuanVideo", Axes.square(_WAN, Axis(tile=16, stride=12))),
    },
    "gamecraft": {"official": _HUNYUAN},
    "ltx_video": {"diffusers": _ramps("diffusers AutoencoderKLLTXVideo", _LTX, drops="last")},
    "ltx2": {
        "official": lambda arch: _LTX_2_OFFICIAL,
        "diffusers": _ramps("diffusers AutoencoderKLLTX2Video", _LTX, drops="last"),
    },
}
"""Native name -> name of the tiling -> its policy for an architecture's constants. The first is the default."""


def tiling_names(model: str, arch: VAEArchConfig) -> tuple[str, ...]:
    """The tilings of a model by its native name; none if no published code tiles it."""
    return tuple(_names(model, arch))


def tiling_policy(model: str, arch: VAEArchConfig, tiling: str) -> Policy:
    """The policy of a model's tiling; ConfigError names those that exist."""
    if tiling not in (names := tiling_names(model, arch)):
        found = f"`{tiling}`"
        if not names:
            fix = "leave it off: it runs whole, and in exact streams where its layers are local"
            raise ConfigError(f"no published code tiles {model}", expected="no tiling", found=found, fix=fix)
        raise ConfigError(f"{model} has no such tiling", expected=f"one of {', '.join(names)}", found=found)
    base, _, suffix = tiling.partition("-")
    policy = PUBLISHED[model][base](arch)
    return policy.only(SUFFIXES[suffix]) if suffix else policy


def configured_tiling(model: str, arch: VAEArchConfig, config: VAEConfig) -> str:
    """The name of the tiling that a config asks for; ConfigError if it names none, since flags ask for exact plans."""
    if config.tiling:
        return config.tiling
    names = f"one of {', '.join(tiling_names(model, arch)) or 'none'}"
    if config.use_tiling:
        fix = f"for exact plans `ParallelTiledVAE(vae)`; for what published code gives, tiling={names}"
        raise ConfigError("use_tiling: published tilings change the result, so they are asked for by name", fix=fix)
    raise ConfigError("which tiling?", expected=names)


def _names(model: str, arch: VAEArchConfig) -> Iterator[str]:
    for name, policy in PUBLISHED.get(model, {}).items():
        yield name
        if len(policy(arch).parts) > 1:
            yield from (f"{name}-{suffix}" for suffix in SUFFIXES)
