"""`Adapted`: what a native VAE does in Diffusers' words, the same for all families.

`interop.diffusers` puts it before Diffusers' own class; nothing here imports Diffusers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from vaeport.errors import ConfigError, InputError
from vaeport.interop.ways import Ways
from vaeport.layers import StoredNormalizer
from vaeport.runtime.load import save
from vaeport.vae import VAE

OWN_KEYS = ("_name_or_path", "_diffusers_version", "_use_default_values")
"""of a configuration in Diffusers, which say nothing about the VAE"""


class Adapted(nn.Module):
    """Methods and attributes that come before those of Diffusers' class.

    native      the VAE; its halves are the modules of this object, under their native names
    ways        how it runs

    What else Diffusers' class keeps, its configuration and plain attributes, is here as that class made it.
    """

    _supports_gradient_checkpointing = False
    _supports_group_offloading = False
    theirs: Any  # Diffusers' class, its posteriors by the contract's names, and its containers
    posteriors: dict[str, Callable[[Tensor], Any]]
    encoder_output: Callable[..., Any]
    decoder_output: Callable[..., Any]
    config: Any
    native: VAE
    ways: Ways
    use_slicing: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError("this class is made around a VAE", fix="vaeport.interop.diffusers.as_diffusers(vae)")

    def encode(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """[B, C, *axes] in -1..1 -> `.latent_dist`, a distribution of Diffusers'; `return_dict=False`: a tuple of it.

        Latents are not scaled: pipelines do that. InputError as for `VAE.encode`.
        """
        told = self._told("encode", x, args, kwargs)
        posterior = self.posteriors[self.native.contract.posterior](self._encode(x))
        return self.encoder_output(latent_dist=posterior) if told.get("return_dict", True) else (posterior,)

    def decode(self, z: Tensor, *args: Any, **kwargs: Any) -> Any:
        """[B, Z, *latent axes] -> `.sample`, [B, C, *axes]; `return_dict=False`: a tuple of it.

        temb        where Diffusers' class takes it: the timestep of decoders that know one, [B] or [1]
        generator   where Diffusers' class takes it: ignored, since those decoders draw nothing

        InputError as for `VAE.decode`.
        """
        told = self._told("decode", z, args, kwargs)
        run, timestep = self.ways.running("decode", z, self), told.get("temb")
        samples = []
        for i, part in enumerate(self._parts("decoder", z)):
            if isinstance(timestep, Tensor) and timestep.numel() > len(part):
                samples.append(run.decode(part, timestep=timestep[i : i + 1]).sample)
            else:
                samples.append(run.decode(part, timestep=timestep).sample)
        sample = _joined(samples)
        return self.decoder_output(sample=sample) if told.get("return_dict", True) else (sample,)

    def _encode(self, x: Tensor) -> Tensor:
        """The moments, [B, 2Z, *latent axes]."""
        run = self.ways.running("encode", x, self)
        return _joined([run.encode(part).latent_dist.parameters for part in self._parts("encoder", x)])

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        is_main_process: bool = True,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Writes a folder that Diffusers' class and `vaeport.load` read, with what was changed in `config`.

        ConfigError for pickles, for the hub, and for a configuration that is no longer this VAE's; InputError and
        BlockedError as for `VAE.save`.
        """
        if not safe_serialization:
            raise ConfigError("weights are saved as safetensors alone", fix="leave safe_serialization on")
        if push_to_hub:
            raise ConfigError("nothing is uploaded from here", fix="save to a folder, then `hf upload` it")
        if is_main_process:
            twin = copy(self.native)
            twin.arch = twin.arch.from_published({k: v for k, v in self.config.items() if k not in OWN_KEYS})
            save(twin, Path(save_directory), max_shard_size=max_shard_size, variant=variant)

    @property
    def quant_conv(self) -> nn.Module | None:
        """The encoder's last layer, where there is one: its parameters, not to be called."""
        return _Inside.of(self.native.encoder, "quant_conv")

    @property
    def post_quant_conv(self) -> nn.Module | None:
        """The decoder's first layer, as above."""
        return _Inside.of(self.native.decoder, "post_quant_conv")

    @property
    def latents_mean(self) -> Tensor | None:
        """[Z], where the checkpoint holds it; otherwise it is in `config`, if anywhere."""
        return self._statistics.mean if self._statistics else None

    @property
    def latents_std(self) -> Tensor | None:
        """[Z], as above."""
        return self._statistics.std if self._statistics else None

    @property
    def _statistics(self) -> StoredNormalizer | None:
        found = self.native.normalizer
        return found if isinstance(found, StoredNormalizer) else None

    def tiled_encode(self, *args: Any, **kwargs: Any) -> NoReturn:
        """ConfigError: `enable_tiling` turns tiles on."""
        raise ConfigError("tiles are no call of their own", fix="vae.enable_tiling(), then vae.encode or vae.decode")

    tiled_decode = _decode = tiled_encode

    def enable_layerwise_casting(self, *args: Any, **kwargs: Any) -> NoReturn:
        """ConfigError: kernels read weights as they lie."""
        raise ConfigError("weights have the type that they run in", fix="load the VAE with dtype=..., or vae.to(dtype)")

    def __setattr__(self, name: str, value: Any) -> None:
        """ConfigError for another half: what runs is the native VAE. None lets go of one."""
        if name in ("encoder", "decoder") and value is not None and value is not self._modules.get(name):
            fix = f"to compile: vae.{name[:-1]} = torch.compile(vae.{name[:-1]})"
            raise ConfigError(f"the {name} cannot be replaced", found=type(value).__name__, fix=fix)
        super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By the name of Diffusers' class."""
        from vaeport.interop.diffusers import unmade

        return unmade, (self.theirs.__name__,), self.__dict__

    def _told(self, method: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by the names of Diffusers' class; TypeError for others."""
        told = inspect.signature(getattr(self.theirs, method)).bind(self, x, *args, **kwargs).arguments
        causal = told.get("causal")
        if causal is not None and causal != self.config[f"{method}r_causal"]:
            raise ConfigError(
                "another `causal` than the VAE's", expected=self.config[f"{method}r_causal"], found=causal
            )
        return told

    def _parts(self, half: Any, x: Tensor) -> tuple[Tensor, ...]:
        """Single samples if slicing is on; in the half's type, where the halves differ and x has `self.dtype`."""
        x = x.to(self.native.half_dtype(half)) if x.dtype == cast("torch.dtype", self.dtype) else x
        return x.split(1) if self.use_slicing and len(x) > 1 else (x,)


class _Inside(nn.Module):
    """A layer that is part of a native half, for those who ask for its parameters."""

    @classmethod
    def of(cls, half: nn.Module | None, name: str) -> nn.Module | None:
        layer = getattr(half, name, None)
        if layer is None:
            return None
        inside = cls()
        inside.layer = layer
        return inside

    def forward(self, *args: Any) -> NoReturn:
        """InputError, since it would be applied twice."""
        raise InputError("this layer is part of the encoder or decoder", fix="call vae.encode or vae.decode")


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
