"""Native models of other trees: any torch module with encode and decode, seen as a `VAE` whose contract is probed.

So a port into another project's tree takes the same commands: `--native package.module:Class --native-args JSON`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vaeport.configs import BUCKETS, AxisRule, LatentContract, VAEArchConfig, VAEConfig
from vaeport.errors import ProofError
from vaeport.layers import DiagonalGaussian, Layer, SoftplusGaussian
from vaeport.mapping import Layout, Rule
from vaeport.port.probe import probe
from vaeport.proof.calling import Caller, Convention, build
from vaeport.proof.importing import import_object
from vaeport.proof.setup import native_of
from vaeport.proof.sides import ReferenceSide
from vaeport.registry import Registration
from vaeport.vae import VAE, DecoderOutput, EncoderOutput


@dataclass(frozen=True, kw_only=True)
class ElsewhereArchConfig(VAEArchConfig):
    """The constructor's arguments, all of them in `extra`."""


class _Half(Layer):
    """A method of the module as a layer without weights of its own."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        """What the method gives."""
        return self.run(x)


class Elsewhere(VAE):
    """A module of another tree; `made` and `probed` belong to the subclass that `elsewhere` makes."""

    made: ClassVar[Callable[[Mapping[str, Any]], Any]]
    probed: ClassVar[Mapping[str, Any]]
    arch_class = ElsewhereArchConfig

    def __init__(self, arch: VAEArchConfig, config: VAEConfig | None = None) -> None:
        nn.Module.__init__(self)
        self.arch = arch
        self.config = config or self.config_class()
        self.contract = self.contract_of(arch)
        convention = Convention(**self.probed["convention"])
        self._caller = Caller(type(self).made(arch.extra), convention, {})
        self.inner = self._caller.module
        self.encoder = _Half(lambda x: self.encode(x).latent_dist.parameters)
        self.decoder = _Half(self._caller.decode)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """As `VAE.encode`, by the module's own."""
        moments = self._caller.encode(x)["moments"]
        kinds = {"gaussian-softplus": SoftplusGaussian}
        posterior = kinds.get(self.contract.posterior, DiagonalGaussian)(moments)
        return EncoderOutput(posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, **conditions: Any) -> Any:
        """As `VAE.decode`: takes latents that are not normalised, whatever the module's own takes.

        What its own decode depends on besides is part of the way in which it is called.
        """
        sample = self._caller.decode(self.normalize(z) if self._caller.convention.normalized else z)
        return DecoderOutput(sample) if return_dict else (sample,)

    def normalize(self, z: Tensor) -> Tensor:
        """With the numbers that the probe found, or none."""
        return z.sub(_wide(self.contract.shift, z)).mul(_wide(self.contract.scale, z))

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse."""
        return z.div(_wide(self.contract.scale, z)).add(_wide(self.contract.shift, z))

    @classmethod
    def contract_of(cls, arch: Any) -> LatentContract:
        """What the probe found."""
        found, inside = cls.probed, cls.probed["normalization"]
        numbers = {name: _tuple(inside[name]) for name in ("shift", "scale")} if "scale" in inside else {}
        softplus = found["posterior"] == "gaussian-softplus"
        clamp = found["decode"]["clamp"]
        return LatentContract(
            modality=found["modality"],
            channels=found["channels"],
            axes=tuple(AxisRule(name=a["name"], multiple=a["multiple"], offset=a["offset"]) for a in found["axes"]),
            latent_channels=found["latent_channels"],
            posterior="gaussian-softplus" if softplus else "gaussian-logvar",
            clamp=None if clamp is None else (clamp[0], clamp[1]),
            **numbers,
        )


def elsewhere(path: str, arguments: Mapping[str, Any], call_arguments: Mapping[str, Any] | None = None) -> Registration:
    """A registration for the class at an import path, built with `arguments`.

    Raises ProofError if it cannot be imported, built or called, or if its moments cannot be seen.
    """
    target = import_object(path)
    found = probe(ReferenceSide(path, arguments, convention=Convention.of_calls(call_arguments or {})))
    if found["moments_order"] != "mean first":
        raise ProofError(
            "the native module does not show its moments",
            where=path,
            expected="encode that gives a posterior with `.parameters`, or a submodule whose output is mean and logvar",
            found=found["moments_order"],
        )
    if found["normalization"]["where"] == "caller":
        found["normalization"] = _pipeline_normalization(path, arguments, found["latent_channels"])
    arch = type(f"{target.__name__}ArchConfig", (ElsewhereArchConfig,), {"class_names": (target.__name__,)})
    model = type(
        target.__name__,
        (Elsewhere,),
        {
            "made": staticmethod(lambda extra: build(target, extra)),
            "probed": {**found, "flow": None},
            "arch_class": arch,
            "config_class": BUCKETS[found["modality"]],
            "variants": {"as given": arch(extra=dict(arguments))},
            "__module__": target.__module__,
        },
    )
    # its files have its own names
    own = Layout("own", (Rule("inner.{rest*}", "{rest}"),))
    return Registration(path, (target.__name__,), lambda: model, lambda: (own,))


def _pipeline_normalization(path: str, arguments: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """What pipelines do with its latents, by its own `config`."""
    caller = ReferenceSide(path, arguments).open("meta")
    zero, one = (caller.normalize(torch.full((1, channels, 1, 1), value, dtype=torch.float64)) for value in (0.0, 1.0))
    if zero is None or one is None:
        return {"where": "caller"}
    scale = (one - zero).flatten()
    shift = -zero.flatten() / scale
    return {"where": "pipeline", "shift": shift.tolist(), "scale": scale.tolist()}


def native_at(path: str, arguments: Mapping[str, Any]) -> Registration:
    """The native model at an import path: a `vaeport.VAE` as it is, any other module as `elsewhere` sees it."""
    target = import_object(path)
    return native_of(path) if isinstance(target, type) and issubclass(target, VAE) else elsewhere(path, arguments)


def _wide(value: Any, z: Tensor) -> Any:
    return z.new_tensor(value).view(-1, *(1,) * (z.dim() - 2)) if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
