"""Activation traces of both sides of a proof, in FastVideo's format, and how they differ."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vaeport.drift.activations import record
from vaeport.drift.align import units_of
from vaeport.drift.fastvideo_trace import Record, read_trace, write_trace
from vaeport.drift.forced import in_one_piece
from vaeport.drift.prepare import opened
from vaeport.drift.trace_compare import compare, head
from vaeport.errors import BlockedError, InputError
from vaeport.media.files import writing
from vaeport.proof.cases import Case
from vaeport.proof.jobs import in_float64
from vaeport.proof.noise import drawn_noise
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import ReferenceSide

TOLERANCE = 1e-6
"""Of statistics taken in float32 of a float64 run."""


def write_traces(proof: Proof, folder: Path) -> list[str]:
    """Writes reference.jsonl and native.jsonl, of encode and decode of the proof's first case; says how they differ.

    `vaeport.drift.trace_elsewhere` takes a reference's trace that was made elsewhere.

    ProofError if the reference does not run; InputError or BlockedError if the folder cannot be written.
    """
    reference = made(folder) / "reference.jsonl"
    case = proof.chosen_cases[0]
    with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
        mapped, weights = proof.prepared(Path(temporary))
        _of_reference(proof, weights, case, reference)
        ours = native_trace(proof, weights)
        write_trace(ours, folder / "native.jsonl")
    theirs = read_trace(reference)
    units = units_of(mapped, {one.module for one in theirs})
    pairs = {unit.native: unit.reference for unit in units if not unit.within}
    return head(compare(ours, theirs, pairs), TOLERANCE)


def made(folder: Path) -> Path:
    """The folder, which is there now. InputError if a file has its name, BlockedError if the system refuses."""
    try:
        with writing(folder, InputError):
            folder.mkdir(parents=True, exist_ok=True)
    except BlockedError as error:
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
            raise InputError("no folder can be here: a file has this name", where=folder, fix="name another") from error
        raise
    return folder


@torch.no_grad()
def native_trace(proof: Proof, weights: Path) -> list[Record]:
    """Encode and decode of the proof's first case on the native side, every module, in float64 and in one piece."""
    vae = opened(proof, weights)
    x, z = proof.chosen_cases[0].inputs(proof.seed)

    def run() -> None:
        with in_float64(), drawn_noise():
            vae.encode(x.double())
            vae.decode(z.double())

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
    """Runs where the reference runs: encode and decode of one case, every module, written to `file`."""
    caller = side.open()
    caller.module.load_state_dict(load_file(weights), strict=True)
    torch.nn.Module.to(caller.module, torch.float64)
    caller.cast(side.device, torch.float64)
    x, z = (t.double() for t in Case(name, tuple(media), tuple(latent)).inputs(seed))

    def run() -> None:
        with in_float64(), drawn_noise():
            caller.encode(x)
            caller.decode(z)

    records: list[Record] = record(caller.module, run)
    write_trace(records, file)
    return {"records": len(records), "first": json.loads(records[0].line()) if records else None}
