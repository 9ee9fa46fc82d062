"""Traces of both sides: what they are made of, what a port or a reference that raises comes to, and what is kept."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import narrow
from vaeport.drift.fastvideo_trace import read_trace
from vaeport.drift.tracing import write_traces
from vaeport.errors import InputError, ProofError
from vaeport.proof.cases import Case, cases_of
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import ReferenceSide
from vaeport.vae import VAE


def cases(skip: str | None = None) -> tuple[Case, ...]:
    """The first, of two samples, and the shortest, of one."""
    first, shortest, _ = cases_of(narrow.proof("kl").template.contract)
    return replace(first, skip=skip), shortest


def lacking(vae: VAE) -> None:
    """It raises KeyError when it runs."""
    vae.get_submodule("decoder.norm_out").register_forward_pre_hook(lambda module, args: {}["weight"])


def raising(proof: Proof, folder: Path, python: str | None) -> Proof:
    """With a reference whose decode raises, here or in a process of its own."""
    side: Any = proof.reference
    (folder / "adapter.py").write_text("def decode(built, z):\n    raise RuntimeError('no kernel for it')\n", "utf-8")
    if python is None:
        proof.reference = replace(side, adapter_file=str(folder / "adapter.py"))
    else:
        proof.reference = RemoteSide(side.path, side.arguments, str(folder / "adapter.py"), python=python)
    return proof


def test_both_sides_are_traced_and_a_trace_that_is_there_stays(tmp_path: Path) -> None:
    told = write_traces(narrow.proof("kl", cases=cases()[1:]), tmp_path)
    assert told[0].startswith("no difference above 1e-06"), told
    reference = tmp_path / "reference.jsonl"
    assert {one.dtype for one in read_trace(reference)} == {"torch.float64"}
    reference.write_text("brought from elsewhere\n", "utf-8")
    with pytest.raises(InputError, match="not overwritten") as refused:
        write_traces(narrow.proof("kl", cases=cases()[1:]), tmp_path)
    assert refused.value.where == reference
    assert reference.read_text("utf-8") == "brought from elsewhere\n"


def test_a_case_that_is_skipped_is_not_traced(tmp_path: Path) -> None:
    write_traces(narrow.proof("kl", cases=cases("too large")), tmp_path)
    for side in ("reference", "native"):
        assert {one.shape[0] for one in read_trace(tmp_path / f"{side}.jsonl") if one.shape} == {1}
    with pytest.raises(ProofError, match="no case can be traced") as none:
        write_traces(narrow.proof("kl", cases=cases("too large")[:1]), tmp_path / "none")
    assert none.value.found == "too large"


def test_a_port_that_raises_is_told_and_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="the native side does not run") as error:
        write_traces(narrow.proof("kl", lacking, cases=cases()[1:]), tmp_path)
    assert (error.value.where, error.value.found) == ("kl", "KeyError: 'weight'")
    assert error.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("python", [None, sys.executable], ids=["here", "elsewhere"])
def test_a_reference_that_raises_is_told_and_leaves_no_trace(python: str | None, tmp_path: Path) -> None:
    proof = raising(narrow.proof("kl", cases=cases()[1:]), tmp_path, python)
    assert isinstance(proof.reference, ReferenceSide if python is None else RemoteSide)
    with pytest.raises(ProofError, match="the reference does not run") as error:
        write_traces(proof, tmp_path / "traces")
    assert error.value.found == "RuntimeError: no kernel for it"
    assert "--adapter" in (error.value.fix or "")
    assert not list((tmp_path / "traces").iterdir())
