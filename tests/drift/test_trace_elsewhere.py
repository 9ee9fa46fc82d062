"""A reference's trace that was made elsewhere, against the native side here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import narrow
from tests.drift.broken_ports import EPS, Fault, options_of
from tests.drift.reference_traces import left_by_diffusers
from vaeport.drift.fastvideo_trace import Record, read_trace, write_trace
from vaeport.drift.trace_elsewhere import against_trace
from vaeport.errors import BlockedError, InputError, ProofError
from vaeport.proof.calling import Convention

WIDE = replace(EPS, source=EPS.source.replace("eps=1e-5", "eps=0.1"))
"""a difference that statistics show"""


def options(folder: Path, native: str = "autoencoder_kl", fault: Fault = EPS) -> dict[str, Any]:
    return {**options_of(fault, folder / "made", native), "reference": "nowhere.at_all:VAE"}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Inputs and weights as they are written for whoever runs the reference."""
    with pytest.raises(ProofError, match="no trace here yet") as error:
        against_trace(options(tmp_path), tmp_path / "trace.jsonl", folder=tmp_path / "given")
    assert str(tmp_path / "given" / "weights.ldm.safetensors") in str(error.value)
    assert not (tmp_path / "given" / "native.jsonl").exists()
    return tmp_path / "given"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_right_port_does_not_differ_whatever_type_the_reference_ran_in(
    dtype: torch.dtype, given: Path, tmp_path: Path
) -> None:
    left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl", dtype)
    found = against_trace(options(tmp_path), tmp_path / "trace.jsonl", folder=given)
    assert found, found.lines()[0]
    assert len({row.native for row in found.rows}) > 100
    assert {row.native for row in found.rows} < {one.module for one in read_trace(given / "native.jsonl")}
    assert not against_trace(options(tmp_path), tmp_path / "trace.jsonl", tolerance=0.0)


def test_the_first_module_that_differs(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    WIDE.write(tmp_path / "wide_port.py")
    left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl", prefix="vae._orig_mod.")
    found = against_trace(options(tmp_path, "wide_port:Broken"), tmp_path / "trace.jsonl")
    assert not found
    verdict, *table = found.lines()
    assert verdict.startswith("first difference: decoder.norm_out / decoder.conv_norm_out out: ")
    assert [line.split()[:2] for line in table if line[0] == "!"] == [
        ["!", "decoder.norm_out"],
        ["!", "decoder.conv_out"],
    ]
    assert not found.notes
    assert found.to_json()["passed"] is False
    assert "decoder.conv_act" in found.unpaired


def test_a_trace_of_other_inputs_is_told(given: Path, tmp_path: Path) -> None:
    left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl")
    found = against_trace({**options(tmp_path), "seed": 1}, tmp_path / "trace.jsonl")
    assert "made with these inputs and weights?" in found.lines()[-1]


def test_a_part_of_the_modules_is_enough(given: Path, tmp_path: Path) -> None:
    whole = left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl")
    write_trace([one for one in whole if one.module.endswith("norm1")], tmp_path / "norms.jsonl")
    found = against_trace(options(tmp_path), tmp_path / "norms.jsonl")
    assert found
    assert {row.native.rpartition(".")[2] for row in found.rows} == {"norm1"}


def test_another_models_trace_is_refused(tmp_path: Path) -> None:
    write_trace([Record("transformer.blocks.0", stats={"mean": 1.0})], tmp_path / "trace.jsonl")
    with pytest.raises(ProofError, match="no module in common") as error:
        against_trace(options(tmp_path), tmp_path / "trace.jsonl")
    assert "transformer.blocks.0" in str(error.value.found)
    assert "layout ldm" in str(error.value.expected)


@pytest.mark.parametrize("tolerance", [-1.0, 1.0, float("nan")])
def test_tolerances_that_are_none(tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a tolerance"):
        against_trace(options(tmp_path), tmp_path / "trace.jsonl", tolerance=tolerance)


def test_the_tolerance_is_that_of_the_types_up_to_a_row(given: Path, tmp_path: Path) -> None:
    """A type of whole numbers loosens nothing, and bfloat16 nothing that comes before it, or in the other half."""
    types = {"decoder.conv_norm_out": "torch.bfloat16", "encoder.conv_in": "torch.int64"}
    whole = left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl")
    mixed = [replace(one, dtype=types.get(one.module, one.dtype)) for one in whole]
    write_trace(mixed, tmp_path / "mixed.jsonl")
    found = against_trace(options(tmp_path), tmp_path / "mixed.jsonl")
    loose = [row.native for row in found.rows if row.tolerance == 0.05]
    assert loose == ["decoder.norm_out", "decoder.conv_out"]
    assert {row.tolerance for row in found.rows if row.native not in loose} == {1e-6}
    assert found.lines()[0].startswith("no difference above 1e-06 to 0.05;")
    first = replace(mixed[0], stats={name: 1.001 * value for name, value in mixed[0].stats.items()})
    write_trace([first, *mixed[1:]], tmp_path / "off.jsonl")
    off = against_trace(options(tmp_path), tmp_path / "off.jsonl")
    assert off.lines()[0].startswith(f"first difference: {off.rows[0].native} / {mixed[0].module} ")


def test_what_the_folder_holds_is_never_written_over(given: Path, tmp_path: Path) -> None:
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in given.iterdir()}
    left_by_diffusers(narrow.KL, given, tmp_path / "trace.jsonl")
    assert against_trace(options(tmp_path), tmp_path / "trace.jsonl", folder=given)
    with pytest.raises(InputError, match="of another proof") as refused:
        against_trace({**options(tmp_path), "seed": 1}, tmp_path / "trace.jsonl", folder=given)
    assert refused.value.where == given / "inputs.safetensors"
    assert "--trace" in (refused.value.fix or "")
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before
    (given / "inputs.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="of another proof"):
        against_trace(options(tmp_path), tmp_path / "absent.jsonl", folder=given)
    assert (given / "inputs.safetensors").read_bytes() == b"torn"


def test_the_references_trace_is_never_written_over(given: Path, tmp_path: Path) -> None:
    whole = left_by_diffusers(narrow.KL, given, given / "native.jsonl")
    (tmp_path / "link.jsonl").symlink_to(given / "native.jsonl")
    for name in (given / "native.jsonl", given / ".." / "given" / "native.jsonl", tmp_path / "link.jsonl"):
        with pytest.raises(InputError, match="over the reference's"):
            against_trace(options(tmp_path), name, folder=given)
    assert read_trace(given / "native.jsonl") == whole


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("adapter", Path("adapter.py"), "--adapter"),
        ("capture", Path("kept"), "--capture"),
        ("convention", Convention(), "--call-args"),
        ("reference_python", "python", "--reference-python"),
    ],
)
def test_options_of_a_reference_that_is_run_are_refused(name: str, value: Any, option: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the reference is not run") as refused:
        against_trace({**options(tmp_path), name: value}, tmp_path / "trace.jsonl", folder=tmp_path / "given")
    assert refused.value.found == option
    assert not (tmp_path / "given").exists()


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="cannot be read"):
        against_trace(options(tmp_path), tmp_path / ("x" * 300))
