"""Native VAEs in Diffusers' pipelines: `as_diffusers`, `load`.

pipe = StableDiffusionPipeline.from_pretrained(folder, vae=as_diffusers(vaeport.load(folder, subfolder="vae")))
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from vaeport.errors import BlockedError, ConfigError
from vaeport.interop.adapted import Adapted
from vaeport.interop.ways import Ways
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load as load_native
from vaeport.runtime.parallel import ParallelTiledVAE
from vaeport.runtime.tiling import tiling_policy
from vaeport.vae import VAE


def as_diffusers(vae: VAE | ParallelTiledVAE, *, tiling: str | None = None) -> Any:
    """An instance of the family's class in Diffusers that encodes and decodes with `vae`, whose weights it shares.

    Pipelines take it in `from_pretrained(..., vae=...)` and by assignment. `config` and all plain attributes are those
    that Diffusers' class makes of the VAE's configuration; `parameters()` and `state_dict()` are the native ones.

    vae     with latents="raw" and without tiling; a `ParallelTiledVAE` runs by plan within its budget and on its ranks
            from the start
    tiling  what `enable_tiling` turns on. None: exact plans within the memory that is free, which give what the whole
            gives; sizes of tiles are taken and have no effect. "diffusers", "official", ...: that code's blended tiles
            (as `vaeport.load(..., tiling=...)`), at its sizes; those of "diffusers" in time follow the flags
            `use_framewise_encoding` and `use_framewise_decoding`, as there

    ConfigError for a model that has no class in Diffusers or no such tiling; BlockedError without Diffusers.
    """
    plans, native = (vae, vae.vae) if isinstance(vae, ParallelTiledVAE) else (None, vae)
    _require(native, plans, tiling)
    published = native.arch.to_published()
    kind = _adapted_class(published["_class_name"])
    with torch.device("meta"):
        made = kind.theirs.from_config(published)
    made.__class__ = kind
    if native.config.pretrained_path is not None:
        made.register_to_config(_name_or_path=native.config.pretrained_path)
    tiles = {name: value for name, value in vars(made).items() if name.startswith("tile_")}
    made.__dict__.update(
        native=native,
        ways=Ways(native, tiling, plans.budget if plans else None, plans.ranks if plans else None, tiles),
        use_tiling=plans is not None,
        training=native.training,
        _modules=native._modules,
        _buffers={},
    )
    return made


def load(path: str | Path, *, subfolder: str | None = "vae", tiling: str | None = None, **options: Any) -> Any:
    """`as_diffusers` of `vaeport.load(path, subfolder=..., **options)`; subfolder=None for a single file."""
    return as_diffusers(load_native(path, subfolder=subfolder, **options), tiling=tiling)


def unmade(name: str) -> Any:
    """An adapted object without attributes, which copies and pickles begin with."""
    kind = _adapted_class(name)
    return kind.__new__(kind)


@cache
def _adapted_class(name: str) -> Any:
    """A class that Diffusers takes for its own of that name."""
    try:
        import diffusers
        from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
        from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
        from diffusers.models.modeling_outputs import AutoencoderKLOutput
        from diffusers.utils.accelerate_utils import apply_forward_hook
    except ImportError as error:
        raise BlockedError("Diffusers is not installed", found=error, fix="pip install 'vaeport[diffusers]'") from error
    theirs = getattr(diffusers, name, None)
    if theirs is None:
        fix = "use it as it is; `vaeport models` lists the classes"
        raise ConfigError("Diffusers has no class of this name", found=name, fix=fix)
    hooked: Any = apply_forward_hook
    names = {
        "__module__": theirs.__module__,  # a saved pipeline names it, and loads without vaeport
        "theirs": theirs,
        "encode": hooked(Adapted.encode),
        "decode": hooked(Adapted.decode),
        "posteriors": {
            "gaussian-logvar": DiagonalGaussianDistribution,
            "gaussian-softplus": OobleckDiagonalGaussianDistribution,
        },
        "encoder_output": AutoencoderKLOutput,
        "decoder_output": DecoderOutput,
    }
    return type(name, (Adapted, theirs), names)


def _require(native: VAE, plans: ParallelTiledVAE | None, tiling: str | None) -> None:
    if native.config.latents != "raw":
        fix = 'load it with latents="raw"'
        raise ConfigError("pipelines normalise latents themselves", found='latents="normalized"', fix=fix)
    if native.config.tiling is not None:
        fix = "load it without, and give as_diffusers(vae, tiling=...)"
        raise ConfigError("this VAE is tiled already", found=f"tiling={native.config.tiling!r}", fix=fix)
    if tiling is None:
        return
    if plans is not None:
        raise ConfigError("plans are exact, this tiling is not", found=f"tiling={tiling!r}", fix="give the VAE itself")
    tiling_policy(ModelRegistry.find_class(type(native)).name, native.arch, tiling)
