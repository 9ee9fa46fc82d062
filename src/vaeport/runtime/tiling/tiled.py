"""`tiled`: a VAE whose encoder and decoder run tile by tile."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from torch import Tensor

from vaeport.configs import AxisRule
from vaeport.errors import ConfigError, InputError
from vaeport.layers import TIME, Barrier, Layer, run_in_pieces
from vaeport.layers.layer import Conditions
from vaeport.registry import ModelRegistry
from vaeport.runtime.tiling.policy import Policy, Way
from vaeport.runtime.tiling.published import configured_tiling, tiling_policy
from vaeport.runtime.tiling.run import run_tiled
from vaeport.vae import VAE


class TiledHalf(Barrier):
    """An encoder or decoder that runs tile by tile; its weights and their names are those of the half itself.

    untiled     the half itself
    pieces      lengths of the first and the other pieces in which a tile runs, None: in one

    Streamed, it waits for the last piece: which tiles there are depends on the whole length.
    """

    untiled: Layer

    def __init__(
        self, half: Layer, policy: Policy, rules: tuple[AxisRule, ...], way: Way, pieces: tuple[int, int] | None
    ) -> None:
        super().__init__()
        # shared, so that state_dict, to() and parameters() see the half's own weights under their own names
        self._modules, self._parameters, self._buffers = half._modules, half._parameters, half._buffers
        self.__dict__["untiled"] = half
        self.policy, self.rules, self.way, self.pieces = policy, rules, way, pieces

    def forward(self, x: Tensor) -> Tensor:
        """As the half's own; InputError if the last tile is too short for it."""
        for cuts in self.policy.cuts(x.shape[2:], self.rules, self.way):
            self._require_outputs(cuts.axis, cuts.pieces[-1].stop - cuts.pieces[-1].start, x.shape[cuts.axis])
        return run_tiled(self._tile, x, self.policy, self.rules, self.way)

    def _tile(self, x: Tensor) -> Tensor:
        if self.pieces is not None:
            return run_in_pieces(self.untiled, x, TIME, *self.pieces)
        y: Tensor = self.untiled(x)
        return y

    def length(self, n: int, axis: int) -> int:
        """The half's own."""
        return self.untiled.length(n, axis)

    def bind(self, given: Conditions) -> Layer:
        """The tiled half under `given` conditions."""
        return TiledHalf(self.untiled.bind(given), self.policy, self.rules, self.way, self.pieces)

    def _require_outputs(self, axis: int, last: int, n: int) -> None:
        if self.untiled.length(last, axis) < 1:
            rule = self.rules[axis]
            fix = f"crop it to {n - last}, or extend it to {rule.padded(n)}"
            what = "the last tile is too short to give an output"
            raise InputError(
                what, where=f"axis {rule.name}", expected=f"a multiple of {rule.multiple}", found=n, fix=fix
            )


def tiled(vae: VAE, tiling: str | Policy | None = None) -> VAE:
    """A VAE of the same class that shares all weights with `vae` and encodes and decodes tile by tile.

    tiling      name of a published tiling of the model ("official", "diffusers", "diffusers-framewise", ...), a policy
                of one's own, or None for the one that `vae.config` names

    Tiling is approximate: it gives what the published code gives when that tiles. An input no larger than a tile runs
    whole. ConfigError names the tilings that the model has, and refuses audio and a VAE that is tiled already.
    """
    if isinstance(vae.encoder, TiledHalf) or isinstance(vae.decoder, TiledHalf):
        raise ConfigError("this VAE is tiled already", found=vae.config.tiling, fix="tile the one that it came from")
    if vae.contract.modality == "audio":
        raise ConfigError("audio is never tiled", fix="stream it: `vae.stream_decode(...)` is exact")
    twin = copy(vae)
    twin._modules = dict(vae._modules)
    twin._graphs = None
    if isinstance(tiling, Policy):
        policy = tiling
    else:
        model = ModelRegistry.find_class(type(vae)).name
        name = tiling or configured_tiling(model, vae.arch, vae.config)
        policy = tiling_policy(model, vae.arch, name)
        twin.config = replace(vae.config, tiling=name, use_tiling=False, use_temporal_tiling=False)
    ways: tuple[tuple[Way, Layer | None, tuple[int, int] | None], ...] = (
        ("encode", vae.encoder, vae.encode_pieces),
        ("decode", vae.decoder, vae.decode_pieces),
    )
    for way, half, pieces in ways:
        if half is not None:
            setattr(twin, f"{way}r", TiledHalf(half, policy, vae.contract.axes, way, pieces))
            setattr(twin, f"{way}_pieces", None)
    return twin
