"""`Ways`: how a native VAE runs under Diffusers' flags: whole, by exact plan, or by published tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaeport.errors import BlockedError, ConfigError, InputError
from vaeport.registry import ModelRegistry
from vaeport.runtime.parallel import ParallelTiledVAE
from vaeport.runtime.shards import Ranks
from vaeport.runtime.tiling import tiled, tiling_names
from vaeport.runtime.tiling.policy import Way
from vaeport.vae import VAE


class Ways:
    """What was made to run a VAE is kept, but neither copied nor pickled.

    tiling          name of the published tiles that are turned on; None: exact plans
    budget, ranks   of exact plans, see `ParallelTiledVAE`
    tiles           sizes of tiles as Diffusers' class sets them
    """

    def __init__(
        self, native: VAE, tiling: str | None, budget: int | None, ranks: Ranks | None, tiles: Mapping[str, Any]
    ) -> None:
        self.native, self.tiling, self.budget, self.ranks, self.tiles = native, tiling, budget, ranks, tiles
        self._made: dict[Any, VAE | ParallelTiledVAE] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again where it is needed."""
        return {**self.__dict__, "_made": {}}

    def running(self, way: Way, x: Tensor, flags: Any) -> VAE | ParallelTiledVAE:
        """What encodes or decodes x; flags: the object with `use_tiling` and its like."""
        if self.native.device.type == "meta":
            what = "weights that come layer by layer are not supported"
            fix = 'use enable_model_cpu_offload, or `pipe._exclude_from_cpu_offload = ["vae"]` before'
            raise BlockedError(what, found="sequential offload", fix=fix)
        name = self._tiles(way, flags)
        if name is None and (self.tiling is not None or not flags.use_tiling):
            return self.native
        if name is not None:
            return self._kept(name, partial(tiled, self.native, name))
        weights = list(self.native.parameters())
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in weights)):
            raise InputError("plans keep no gradients", fix="vae.disable_tiling(), or torch.no_grad()")
        made = partial(ParallelTiledVAE, self.native, budget=self.budget, ranks=self.ranks)
        return self._kept(frozenset((p.device, p.dtype) for p in weights), made)

    def _kept(self, key: Any, make: Callable[[], VAE | ParallelTiledVAE]) -> VAE | ParallelTiledVAE:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _tiles(self, way: Way, flags: Any) -> str | None:
        """The published tiles that are on; those of "diffusers" in time have flags of their own, as there."""
        if self.tiling is None:
            return None
        changed = [name for name, size in self.tiles.items() if getattr(flags, name) != size]
        if changed:
            expected = ", ".join(f"{name}={self.tiles[name]}" for name in changed)
            found = ", ".join(f"{name}={getattr(flags, name)}" for name in changed)
            fix = "leave them out, or use exact plans (`tiling=None`), which find their own"
            raise ConfigError("published tiles have one size", expected=expected, found=found, fix=fix)
        names = tiling_names(ModelRegistry.find_class(type(self.native)).name, self.native.arch)
        if self.tiling != "diffusers" or "diffusers-framewise" not in names:
            return self.tiling if flags.use_tiling else None
        if not getattr(flags, f"use_framewise_{way.removesuffix('e')}ing"):
            return "diffusers-spatial" if flags.use_tiling else None
        return "diffusers" if flags.use_tiling else "diffusers-framewise"
