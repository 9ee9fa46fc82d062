"""The native side against an activation trace that the reference left elsewhere: nothing of the reference is here."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vaeport.checkpoint.files import exists, reading
from vaeport.checkpoint.text import listing
from vaeport.drift.align import paths_of, units_of
from vaeport.drift.fastvideo_trace import Record, read_trace, write_trace
from vaeport.drift.trace_compare import compare, differing
from vaeport.drift.trace_comparison import TraceComparison, allowed
from vaeport.drift.tracing import NATIVE, first_case, make_folder, native_trace
from vaeport.errors import InputError, ProofError
from vaeport.mapping import Plan, plan
from vaeport.media.atomic import atomic
from vaeport.media.files import writing
from vaeport.proof.calling import Convention
from vaeport.proof.draw import draw_state
from vaeport.proof.prove import Proof
from vaeport.proof.seeded import gains
from vaeport.proof.setup import proof_of
from vaeport.runtime.reading import weight_shapes

_OF_A_RUN = ("adapter", "capture", "convention", "reference_python")
"""Options of a reference that is run."""
_FIX = """run the reference's encode on `media` and its decode on `latent` of {folder}/inputs.safetensors,
       with the weights {weights}, write its activation trace, and name that"""


def against_trace(
    options: Mapping[str, Any], file: Path, *, folder: Path | None = None, tolerance: float | None = None
) -> TraceComparison:
    """Runs the native side on the first case of a proof, in float64, and compares it with the reference's trace `file`.

    options     as for `proof_of`, but for those of a reference that is run; it is not even imported
    folder      gets `inputs.safetensors` (media, latent) and, if they are drawn, `weights.LAYOUT.safetensors`, which
                the trace has to be made with; then `native.jsonl`. What is there already and is not the same stays
    tolerance   relative difference; by default what the types in the trace allow

    ProofError for a trace that is absent or malformed, or that has no module in common with the native model, and for a
    native side that does not run. InputError for options that cannot be followed, and for files in the way.
    """
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InputError("not a tolerance of a relative difference", found=tolerance, expected="0 <= tolerance < 1")
    if given := [name for name in _OF_A_RUN if options.get(name) is not None]:
        names = ", ".join("--call-args" if name == "convention" else f"--{name.replace('_', '-')}" for name in given)
        fix = f"leave {names} out, or the trace"
        raise InputError("the reference is not run where there is a trace of it", found=names, fix=fix)
    if folder is not None and os.path.realpath(file) == os.path.realpath(folder / NATIVE):
        fix = "give the reference's trace another name"
        raise InputError("the native side's trace would be written over the reference's", where=file, fix=fix)
    proof = proof_of(**{**options, "convention": Convention(), "adapter": None, "capture": Path("not read")})
    plans = _plans(proof)
    with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
        place = make_folder(folder or Path(temporary), without=())
        if folder is not None and not exists(file):
            files = dict.fromkeys(str(_given(proof, one, place)) for one in plans)
            fix = _FIX.format(folder=folder, weights=" or ".join(files))
            raise ProofError("no trace here yet; the inputs for it are written", where=file, fix=fix)
        with reading(file):
            theirs = read_trace(file)
        mapped, theirs = _understood(plans, theirs, file)
        weights = _given(proof, mapped, place)
        ours = native_trace(proof, weights)
        if folder is not None:
            write_trace(ours, folder / NATIVE)
    modules = dict.fromkeys(one.module for one in theirs)
    pairs = _pairs(mapped, modules)
    rows = compare(ours, theirs, pairs)
    if tolerance is None:
        rows = allowed(rows)
        tolerance = max(row.tolerance or 0.0 for row in rows)
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
    x, z = first_case(proof).inputs(proof.seed)
    _kept({"media": x, "latent": z}, folder / "inputs.safetensors")
    if proof.weights is not None:
        return proof.weights
    shapes = {block.key: step.stored_shape(block) for step in mapped.steps for block in step.blocks}
    scale = gains(mapped, clamped=proof.template.contract.clamp is not None)
    weights = folder / f"weights.{mapped.layout.name}.safetensors"
    _kept(draw_state(shapes, proof.seed, scale={**scale, **proof.scale}), weights)
    return weights


def _kept(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Writes the file if there is none. InputError if there is one that holds anything else, which stays."""
    if not exists(file):
        with atomic(file, InputError) as partial, writing(file, InputError, SafetensorError):
            save_file(dict(tensors), partial)
        return
    try:
        with reading(file):
            found = load_file(file)
    except SafetensorError:
        found = {}
    same = found.keys() == tensors.keys() and all(
        found[name].dtype == one.dtype and torch.equal(found[name], one) for name, one in tensors.items()
    )
    if not same:
        raise InputError(
            "the folder holds this file of another proof; nothing was written over it",
            where=file,
            expected="no such file, or that of the same model, seed and case",
            fix="name another folder with --trace, or give the options that the folder was made with",
        )


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
