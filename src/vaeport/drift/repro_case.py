"""What a script that shows a difference has to carry: the smallest case, and the reference's tensors in it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vaeport.drift import replay
from vaeport.drift.explanation import Finding
from vaeport.drift.prepare import Prepared, prepared
from vaeport.drift.shrink import Setting, published, template
from vaeport.drift.smaller import small_cases
from vaeport.drift.truth import STAGES
from vaeport.errors import InputError, ProofError, VaeportError
from vaeport.proof.gates import SAME_FUNCTION
from vaeport.proof.importing import import_object
from vaeport.proof.seeded import gains
from vaeport.vae import VAE

_ONLY_WHOLE = ("in pieces", "encode", "decode")
"""Places of findings that show when users run the model, and not in one unit alone."""


@dataclass(frozen=True)
class Stored:
    """`case.json` and `reference.safetensors`: see `vaeport.drift.replay`."""

    case: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    cut: bool = False
    """The halves' outputs were left out for their size."""

    def unit_alone(self) -> Stored:
        """Without the halves' outputs, if there is a unit."""
        if "unit.in.0" not in self.tensors:
            return self
        kept = {n: t for n, t in self.tensors.items() if n.startswith("unit.") or n in ("media", "latent")}
        return Stored(self.case, kept, cut=True)


def smallest(setting: Setting, native: str) -> Stored:
    """The smallest case at which the native class, built as the script does, differs, and its mended copy does not.

    A case in which the unit alone shows it goes before one in which only the halves do. InputError if there is none;
    ProofError if the class cannot be built and loaded as the script does, or its copy not be mended.
    """
    wanted, second = setting.answer.findings[0], None
    for case in small_cases(template(setting.proof).contract, setting.proof.chosen_cases):
        with ExitStack() as stack:
            try:
                given = stack.enter_context(prepared(setting.proof, (case,)))
            except VaeportError:  # too short for the reference
                continue
            stored = _stored(setting, given, native)
        shows = _shows(stored, setting, native)
        if shows and (wanted.unit in ("", shows) or wanted.where in _ONLY_WHOLE):
            return stored
        second = second or (stored if shows else None)
    if second is None:
        raise InputError(
            "the difference does not show when the native class is imported anew",
            where=native,
            found=wanted.change,
            fix="put what is changed after loading into its source",
        )
    return second


def _stored(setting: Setting, given: Prepared, native: str) -> Stored:
    proof, truth, finding = setting.proof, given.truths[0], setting.answer.findings[0]
    case = {
        "native": shown_native(native),
        "reference": proof.reference.describe()["name"],
        "unit": finding.unit,
        "config": published(setting.arch),
        "tiling": setting.tiling,
        "normalized": proof.native.normalized,
        "seed": proof.seed,
        "scale": {**gains(given.mapped, clamped=template(proof).contract.clamp is not None), **proof.scale},
        "shapes": {key: list(t.shape) for key, t in sorted(load_file(given.weights).items())},
    }
    tensors = {"media": truth.media, "latent": truth.latent}
    for half, names in STAGES.items():
        tensors |= {f"{half}.{name}": truth.outputs[name] for name in names if name in truth.outputs}
    if finding.unit:
        vae = mended(_opened(case, native), setting)
        tensors |= _unit_tensors(vae, given, finding)
    return Stored(case, {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in sorted(tensors)})


def _unit_tensors(vae: VAE, given: Prepared, finding: Finding) -> dict[str, Tensor]:
    """The reference's tensors in the layout of the unit's calls; none if they do not answer to each other."""
    truth, reference = given.truths[0], given.references.get(finding.unit, "")
    tensors = {}
    try:
        calls = replay.calls(vae, finding.unit, truth.media, truth.latent)
    except Exception:  # a wrong port may raise anything
        return {}
    for i, pair in enumerate(calls):
        for end, mine in zip(("in", "out"), pair, strict=True):
            theirs = truth.fitted(reference, end, mine.shape, i)
            if theirs is None:
                return {}
            tensors[f"unit.{end}.{i}"] = theirs
    return tensors


def mended(vae: VAE, setting: Setting) -> VAE:
    """With all changes that were found, in place. ProofError if one cannot be made."""
    for finding in setting.answer.findings:
        try:
            finding.fix(vae)
        except Exception as error:  # a change is made for the class as it was when it was explained
            raise ProofError(
                "the change that was found cannot be made in the native class, imported anew",
                where=finding.unit or "the VAE's own steps",
                expected=finding.change,
                found=f"{type(error).__name__}: {error}",
                fix="put what is changed after loading into its source",
            ) from error
    return vae


def _opened(case: Mapping[str, Any], native: str) -> VAE:
    try:
        return replay.opened(case, native)
    except VaeportError:
        raise
    except Exception as error:  # a wrong port may raise anything
        raise ProofError(
            "the native class cannot be built and loaded at the size of the script",
            where=native,
            found=f"{type(error).__name__}: {error}",
            fix="give a configuration that it can be built at with --config",
        ) from error


def _shows(stored: Stored, setting: Setting, native: str) -> str:
    """What fails first; "" if nothing does, or something is left in the mended copy although all is explained."""
    found = _failing(_opened(stored.case, native), stored)
    if found and setting.answer.explained:
        return "" if _failing(mended(_opened(stored.case, native), setting), stored) else found
    return found


def _failing(vae: VAE, stored: Stored) -> str:
    found = replay.errors(vae, stored.case, stored.tensors)
    return next((name for name, error in found if not error <= SAME_FUNCTION), "").partition(" raises ")[0]


def shown_native(native: str) -> str:
    """The name or import path; of a source file, its path from the folder that holds its package."""
    place, _, name = native.rpartition(":")
    if not place.endswith(".py"):
        return native
    module = import_object(native).__module__
    return f"{module.replace('.', '/')}.py:{name}"
