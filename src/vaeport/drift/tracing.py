"""Activation traces of both sides of a proof, in FastVideo's format, and how they differ."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from vaeport.checkpoint.files import exists
from vaeport.drift.activations import record
from vaeport.drift.align import units_of
from vaeport.drift.fastvideo_trace import Record, read_trace, write_trace
from vaeport.drift.forced import in_one_piece
from vaeport.drift.prepare import opened
from vaeport.drift.trace_compare import compare, head
from vaeport.errors import BlockedError, InputError, ProofError, VaeportError
from vaeport.media.files import writing
from vaeport.proof.cases import Case
from vaeport.proof.jobs import in_float64
from vaeport.proof.noise import drawn_noise
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import ReferenceSide

TOLERANCE = 1e-6
"""Of statistics taken in float32 of a float64 run."""
REFERENCE, NATIVE = "reference.jsonl", "native.jsonl"


def write_traces(proof: Proof, folder: Path) -> list[str]:
    """Writes reference.jsonl and native.jsonl, of encode and decode of the first case run; says how they differ.

    `vaeport.drift.trace_elsewhere` takes a reference's trace that was made elsewhere.

    ProofError if a side does not run; InputError or BlockedError if the folder cannot be written, or holds a trace of a
    reference, which may be one that was made elsewhere.
    """
    reference, case = make_folder(folder) / REFERENCE, first_case(proof)
    with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
        mapped, weights = proof.prepared(Path(temporary))
        ours = native_trace(proof, weights)
        _of_reference(proof, weights, case, reference)
        write_trace(ours, folder / NATIVE)
    theirs = read_trace(reference)
    units = units_of(mapped, {one.module for one in theirs})
    pairs = {unit.native: unit.reference for unit in units if not unit.within}
    return head(compare(ours, theirs, pairs), TOLERANCE)


def first_case(proof: Proof) -> Case:
    """The first case that is not skipped. ProofError if there is none."""
    case = next((case for case in proof.chosen_cases if case.skip is None), None)
    if case is None:
        found = next((case.skip for case in proof.chosen_cases), "no case")
        raise ProofError("no case can be traced", expected="a case that is run", found=found)
    return case


def make_folder(folder: Path, without: Sequence[str] = (REFERENCE,)) -> Path:
    """The folder, which is there now, and holds none of the files `without`.

    InputError if a file has its name, or it holds one of those; BlockedError if the system refuses.
    """
    try:
        with writing(folder, InputError):
            folder.mkdir(parents=True, exist_ok=True)
    except BlockedError as error:
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
            raise InputError("no folder can be here: a file has this name", where=folder, fix="name another") from error
        raise
    taken = next((folder / name for name in without if exists(folder / name)), None)
    if taken is not None:
        fix = "move it away, or name another folder"
        raise InputError("a trace is here already, and is not overwritten", where=taken, fix=fix)
    return folder


@contextmanager
def _told(side: str, where: object, fix: str) -> Iterator[None]:
    """What somebody's code raises within comes out as a ProofError."""
    try:
        yield
    except VaeportError:
        raise
    except Exception as error:
        raise ProofError(
            f"the {side} does not run in float64", where=where, found=f"{type(error).__name__}: {error}", fix=fix
        ) from error


@torch.no_grad()
def native_trace(proof: Proof, weights: Path) -> list[Record]:
    """Encode and decode of the first case on the native side, every module, in float64, on the CPU and in one piece.

    ProofError if it does not run.
    """
    x, z = first_case(proof).inputs(proof.seed)

    def run() -> None:
        with in_float64(), drawn_noise():
            vae.encode(x.double())
            vae.decode(z.double())

    with _told("native side", proof.native.name, "mend what it raises"):
        vae = opened(proof, weights)
        nn.Module.to(vae, "cpu")
        with in_one_piece(vae):
            return record(vae, run)


def _of_reference(proof: Proof, weights: Path, case: Case, file: Path) -> None:
    given: dict[str, Any] = {
        "weights": str(weights), "name": case.name, "media": case.media, "latent": case.latent, "seed": proof.seed,
        "file": str(file.resolve()),
    }  # fmt: skip
    if isinstance(proof.reference, RemoteSide):
        proof.reference.ask("drift.tracing:reference_trace", **given)
    elif isinstance(proof.reference, ReferenceSide):
        reference_trace(proof.reference, **given)


@torch.no_grad()
def reference_trace(
    side: ReferenceSide, weights: str, name: str, media: Sequence[int], latent: Sequence[int], seed: int, file: str
) -> dict[str, Any]:
    """Runs where the reference runs: encode and decode of one case in float64 on the CPU, written to `file`.

    ProofError if it does not run.
    """
    x, z = (t.double() for t in Case(name, tuple(media), tuple(latent)).inputs(seed))

    def run() -> None:
        with in_float64(), drawn_noise():
            caller.encode(x)
            caller.decode(z)

    with _told("reference", side.path, "leave --trace out, or build and call it in an --adapter"):
        caller = side.open()
        caller.module.load_state_dict(load_file(weights), strict=True)
        nn.Module.to(caller.module, "cpu", torch.float64)
        caller.cast("cpu", torch.float64)
        records: list[Record] = record(caller.module, run)
    write_trace(records, file)
    return {"records": len(records), "first": json.loads(records[0].line()) if records else None}
