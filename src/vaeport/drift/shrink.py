"""`Shrinking`: the smallest configuration found at which an explanation still says the same of both sides."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaeport.configs import VAEArchConfig
from vaeport.drift.explain import explain
from vaeport.drift.explanation import Explanation, Finding
from vaeport.drift.shrunk_arguments import adapted
from vaeport.drift.smaller import smaller
from vaeport.errors import InputError
from vaeport.proof.cases import cases_of
from vaeport.proof.prove import Proof
from vaeport.vae import VAE

ENOUGH = 20_000
"""Weights of a model that need not be smaller."""
_GIVEN_ANEW = {"config", "variant", "reference_args", "weights", "subfolder", "filename", "capture", "device", "dtypes"}
"""Options that a smaller model cannot keep."""
_UNEXPLAINED_SECONDS, _SEARCH_SECONDS = 1.0, 60.0

MakeProof = Callable[..., Proof]


@dataclass(frozen=True)
class Setting:
    """Both sides at one configuration, with drawn weights, and what was said of them there."""

    arch: VAEArchConfig
    proof: Proof
    answer: Explanation
    weights: int
    tiling: str | None


class Shrinking:
    """The search. `options` as for `proof_of`, `given`: what was said of them; `folder` holds configurations."""

    def __init__(self, options: Mapping[str, Any], given: Explanation, make: MakeProof, folder: Path) -> None:
        self.options, self.given, self.make, self.folder = options, given, make, folder
        self.wanted, self.tried = given.findings[0], 0
        vae = template(make(**options))
        self.model, self.start = type(vae), vae.arch

    def run(self, tries: int, seconds: float) -> Setting:
        """Greedily: the first smaller configuration that will do is the next to be made smaller.

        InputError if the finding does not come back even at the configuration itself.
        """
        end = time.monotonic() + seconds
        best: Setting | None = None
        refused: list[VAEArchConfig] = []
        while best is None or best.weights > ENOUGH:
            arch = self.start if best is None else best.arch
            found = None
            for candidate in smaller(arch, self.model.contract_of(arch).latent_channels):
                if self.tried >= tries or time.monotonic() > end:
                    break
                if candidate not in refused and (found := self.at(candidate, best)) is not None:
                    break
                refused.append(candidate)
            if found is None:
                break
            best = found
        best = best or self._unchanged()
        if best is None:
            raise InputError(
                "the finding does not come back with weights drawn from the seed",
                where=self.wanted.unit or "the VAE's own steps",
                found=self.wanted.change,
                fix="a script for it would have to carry the weights themselves",
            )
        return best

    def at(self, arch: VAEArchConfig, than: Setting | None = None) -> Setting | None:
        """Both sides at a configuration, if they build, are smaller `than`, and the first finding is the same there."""
        for number, arguments in enumerate(adapted(self.options.get("reference_args"), self.start, arch)):
            config = self.folder / f"{self.tried}.{number}.json"
            config.write_text(json.dumps(published(arch)), "utf-8")
            kept = {name: value for name, value in self.options.items() if name not in _GIVEN_ANEW}
            try:
                proof = self.make(**kept, config=config, reference_args=arguments, dtypes=())
                vae = template(proof)
                weights = _weights(vae)
                if than is not None and weights >= than.weights:
                    continue
                cases = proof.chosen_cases if kept.get("tiling") else cases_of(vae.contract)
                limit = _UNEXPLAINED_SECONDS if self.wanted.cause is None else _SEARCH_SECONDS
                answer = explain(proof, cases=cases, seconds=limit)
            except Exception:  # either side may raise anything at a configuration that nobody runs
                continue
            self.tried += 1
            if answer.findings and alike(answer.findings[0], self.wanted):
                return Setting(arch, proof, answer, weights, kept.get("tiling"))
        return None

    def _unchanged(self) -> Setting | None:
        """The configuration itself, with drawn weights."""
        if self.options.get("weights") is not None:
            return self.at(self.start)
        proof = self.make(**{n: v for n, v in self.options.items() if n != "capture"})
        return Setting(self.start, proof, self.given, _weights(template(proof)), self.options.get("tiling"))


def template(proof: Proof) -> VAE:
    """The native model without weights."""
    with torch.device("meta"):
        return proof.native.template()


def published(arch: VAEArchConfig) -> dict[str, Any]:
    """Its config.json, without what says where it came from."""
    return {n: v for n, v in arch.to_published().items() if n == "_class_name" or not n.startswith("_")}


def alike(found: Finding, wanted: Finding) -> bool:
    """The same cause, or any where none is known of `wanted`, in the same unit or one of its name at another level."""
    same_cause = wanted.cause is None or found.cause == wanted.cause
    return same_cause and _unnumbered(found.unit) == _unnumbered(wanted.unit)


def _weights(vae: VAE) -> int:
    return sum(p.numel() for p in vae.parameters())


def _unnumbered(path: str) -> str:
    return re.sub(r"\d+", "*", path)
