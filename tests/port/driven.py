"""The steps of a port from the official side to the proved map, in this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from tests.port import scrambled
from tests.port.near_misses import NEAR_MISSES
from vaeport.mapping.flow import Flow
from vaeport.port.derivation import Derived, derive_map, twin
from vaeport.port.flows import foreign_values
from vaeport.port.probe import probe
from vaeport.port.reuse import ReuseProof, reuse_proof
from vaeport.proof.calling import Convention
from vaeport.proof.sides import ReferenceSide
from vaeport.proof.verdict import Verdict


@dataclass
class Driven:
    """An official side that was probed, and the reuse proof about it."""

    side: ReferenceSide
    contract: dict[str, Any]
    flow: Flow
    proof: ReuseProof

    def measure(self, drawn: Mapping[str, Tensor]) -> Flow:
        """The official flow with values, on these weights."""
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "drawn.safetensors"
            save_file({key: tensor.contiguous() for key, tensor in drawn.items()}, weights)
            media, latent = self.shapes
            return Flow.from_json(foreign_values(self.side, media, latent, str(weights)))

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(self.contract["media"]), tuple(self.contract["latent"])

    def derived(self, measure: Any = None) -> Derived:
        """The map onto the nearest native model."""
        nearest = self.proof.nearest
        assert nearest is not None
        assert nearest.flow is not None
        media, latent = self.shapes
        return derive_map(
            nearest.registration,
            nearest.arch,
            (nearest.flow, self.flow),
            measure or self.measure,
            normalized=self.side.convention.normalized,
            media=media,
            latent=latent,
        )

    def twin(self, derived: Derived) -> Verdict:
        """Gate S with weights drawn anew."""
        nearest, normalized = self.proof.nearest, self.side.convention.normalized
        assert nearest is not None
        sides = self.side, nearest.registration, nearest.arch  # type: ignore[union-attr]
        with twin(*sides, derived, self.flow, normalized=normalized) as proof:  # type: ignore[arg-type]
            return proof.run()


def drive(path: str, arguments: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> Driven:
    """Probe and reuse proof of `path`; `told`: what the proof hears of its arguments, if not all of them."""
    side = ReferenceSide(path, arguments)
    # as it comes out of another process
    contract = json.loads(json.dumps(probe(side)))
    flow = Flow.from_json(contract.pop("flow"))
    side = replace(side, convention=Convention(**contract["convention"]))
    return Driven(side, contract, flow, reuse_proof(flow, contract, arguments if told is None else told))


def near_miss(change: str, **config: Any) -> nn.Module:
    """One of `NEAR_MISSES` by name, of its class with this configuration."""
    module: nn.Module = NEAR_MISSES[change](scrambled.original(change.partition("_")[0], 0, **config))
    return module
