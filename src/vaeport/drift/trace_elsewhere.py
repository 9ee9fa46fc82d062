"""The native side against an activation trace that the reference left elsewhere: nothing of the reference is here."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vaeport.checkpoint.text import listing
from vaeport.drift.align import paths_of, units_of
from vaeport.drift.fastvideo_trace import Record, read_trace, write_trace
from vaeport.drift.trace_compare import compare, differing
from vaeport.drift.trace_comparison import TraceComparison
from vaeport.drift.tracing import TOLERANCE, made, native_trace
from vaeport.errors import InputError, ProofError
from vaeport.mapping import Plan, plan
from vaeport.media.files import writing
from vaeport.proof.calling import Convention
from vaeport.proof.draw import draw_state
from vaeport.proof.prove import Proof
from vaeport.proof.seeded import gains
from vaeport.proof.setup import proof_of
from vaeport.runtime.reading import weight_shapes

TOLERANCES = {"torch.float64": TOLERANCE, "torch.bfloat16": 0.05, "torch.float16": 0.01}
"""By the type that the reference ran in; the native side runs in float64."""
TOLERANCE_ELSE = 1e-4
_FIX = """run the reference's encode on `media` and its decode on `latent` of {folder}/inputs.safetensors,
       with the weights {weights}, write its activation trace, and name that"""


def against_trace(
    options: Mapping[str, Any], file: Path, *, folder: Path | None = None, tolerance: float | None = None
) -> TraceComparison:
    """Runs the native side on the first case of a proof, in float64, and compares it with the reference's trace `file`.

    options     as for `proof_of`; the reference is not imported
    folder      gets `inputs.safetensors` (media, latent) and, if they are drawn, `weights.LAYOUT.safetensors`, which
                the trace has to be made with; then `native.jsonl`
    tolerance   relative difference; by default what the type that the trace was made in allows

    ProofError for a trace that is absent or malformed, or that has no module in common with the native model.
    """
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InputError("not a tolerance of a relative difference", found=tolerance, expected="0 <= tolerance < 1")
    proof = proof_of(**{**options, "convention": Convention(), "adapter": None, "capture": Path("not read")})
    plans = _plans(proof)
    with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
        place = made(folder or Path(temporary))
        if folder is not None and not file.exists():
            files = dict.fromkeys(str(_given(proof, one, place)) for one in plans)
            fix = _FIX.format(folder=folder, weights=" or ".join(files))
            raise ProofError("no trace here yet; the inputs for it are written", where=file, fix=fix)
        theirs = read_trace(file)
        mapped, theirs = _understood(plans, theirs, file)
        weights = _given(proof, mapped, place)
        ours = native_trace(proof, weights)
        if folder is not None:
            write_trace(ours, folder / "native.jsonl")
    modules = dict.fromkeys(one.module for one in theirs)
    pairs = _pairs(mapped, modules)
    rows = compare(ours, theirs, pairs)
    if tolerance is None:
        tolerance = max(TOLERANCES.get(str(one.dtype), TOLERANCE_ELSE) for one in theirs)
    found = TraceComparison(rows, tolerance, [name for name in modules if name and name not in pairs.values()])
    if rows[0] in differing(rows, tolerance):
        note = "the first unit differs already: was the trace made with these inputs and weights?"
        found = replace(found, notes=(note,))
    return found


def _plans(proof: Proof) -> list[Plan]:
    """The layouts that a reference may have: a module's own keys, without what stands before them in pipelines."""
    bare = [replace(layout, prefixes=("",)) for layout in proof.layouts]
    every = [plan(layout, weight_shapes(proof.template)) for layout in bare]
    return [one for one in every if one.fits] or [every[0].require(proof.native.name, "fix the map")]


def _given(proof: Proof, mapped: Plan, folder: Path) -> Path:
    """Writes the inputs, and the weights if they are drawn; returns the path of the weights."""
    x, z = proof.chosen_cases[0].inputs(proof.seed)
    with writing(folder, InputError):
        save_file({"media": x, "latent": z}, folder / "inputs.safetensors")
        if proof.weights is not None:
            return proof.weights
        shapes = {block.key: step.stored_shape(block) for step in mapped.steps for block in step.blocks}
        scale = gains(mapped, clamped=proof.template.contract.clamp is not None)
        weights = folder / f"weights.{mapped.layout.name}.safetensors"
        save_file(draw_state(shapes, proof.seed, scale={**scale, **proof.scale}), weights)
    return weights


def _understood(plans: Sequence[Plan], theirs: Sequence[Record], file: Path) -> tuple[Plan, list[Record]]:
    """The layout whose modules the trace speaks of, and its records without what stands before their paths there."""
    modules = {one.module for one in theirs}
    prefixes = [_prefix(modules, paths_of(mapped)) for mapped in plans]
    read = [{name.removeprefix(prefix) for name in modules} for prefix in prefixes]
    best = max(range(len(plans)), key=lambda i: len(_pairs(plans[i], read[i])))
    if not _pairs(plans[best], read[best]):
        raise ProofError(
            "the trace and the native model have no module in common",
            where=file,
            expected=" or ".join(f"{listing(paths_of(one)[-2:], 2)} (layout {one.layout.name})" for one in plans),
            found=listing(sorted(modules), 4),
            fix="trace the VAE whose weights these are, under its own module paths",
        )
    prefix = prefixes[best]
    return plans[best], [replace(one, module=one.module.removeprefix(prefix)) for one in theirs]


def _pairs(mapped: Plan, modules: Collection[str]) -> dict[str, str]:
    """Native modules and those of the reference that they answer to."""
    return {unit.native: unit.reference for unit in units_of(mapped, modules) if not unit.within}


def _prefix(modules: Collection[str], paths: Collection[str]) -> str:
    """What stands before the reference's module paths in the trace, such as `_orig_mod.`; mostly nothing."""
    known, seen = set(paths), Counter({"": 0})
    for module in modules:
        parts = module.split(".")
        seen.update(".".join([*parts[:n], ""]) for n in range(len(parts)) if ".".join(parts[n:]) in known)
    return seen.most_common(1)[0][0]
