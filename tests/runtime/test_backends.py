"""Known faults of cuDNN: which versions have them, and what is done about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from vaeport.errors import BlockedError
from vaeport.runtime.backends import checked_backend, known_faults

CUDA = torch.device("cuda")
HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ("cudnn", "version", "effects"),
    [
        (None, "2.13.0+cpu", []),
        (90701, "2.7.0+cu126", []),
        (90800, "2.7.0+cu128", ["wrong"]),
        (91002, "2.8.0+cu128", ["wrong", "tf32"]),
        (91002, "2.9.0+cu128", ["slow", "tf32"]),
        (91002, "2.10.0+cu128", ["slow", "tf32"]),
        (91400, "2.9.1", ["slow", "tf32"]),
        (91501, "2.9.0", ["slow", "tf32"]),
        (91501, "2.9.1", ["tf32"]),
        (91600, "2.8.0", []),
        (91900, "2.11.0+cu130", []),
        (91900, "2.12.0.dev20260105+cu130", []),
    ],
)
def test_which_versions_have_a_fault(cudnn: int | None, version: str, effects: list[str]) -> None:
    assert [fault.effect for fault in known_faults(cudnn, version)] == effects


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """cuDNN 9.10.2 under PyTorch 2.8.0; switches are as they were afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch, "__version__", "2.8.0+cu128")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield monkeypatch
    torch.backends.cudnn.allow_tf32 = before


@contextmanager
def autocast() -> Iterator[None]:
    """To bfloat16 on CUDA, also on a machine that has none, where torch.autocast does nothing."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize("dtype", HALF)
def test_wrong_values_are_refused(installed: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    with pytest.raises(BlockedError, match=r"wrong values for large inputs .*163539") as refused:
        checked_backend(CUDA, dtype)
    error = refused.value
    assert error.expected == "cuDNN before 9.8.0 or from 9.15.0 on"
    assert error.found == f"cuDNN 9.10.2 under PyTorch 2.8.0+cu128, {dtype}"
    assert "install a PyTorch" in str(error.fix)
    assert error.exit_code == 3


def test_autocast_runs_float32_in_another_type(installed: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.allow_tf32 = False
    checked_backend(CUDA, torch.float32)
    with autocast(), pytest.raises(BlockedError, match="wrong values"):
        checked_backend(CUDA, torch.float32)


def test_tf32_is_switched_off_where_it_has_a_fault(installed: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match=r"TF32, which is switched off .*167024\): cuDNN 9\.10\.2"):
        checked_backend(CUDA, torch.float32)
    assert torch.backends.cudnn.allow_tf32 is False
    checked_backend(CUDA, torch.float32)
    torch.backends.cudnn.allow_tf32 = True
    checked_backend(CUDA, torch.float64)
    installed.setattr(torch.backends.cudnn, "version", lambda: 91600)
    checked_backend(CUDA, torch.float32)
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize(
    ("cudnn", "version", "fix"),
    [(91002, "2.9.0", "a PyTorch that brings"), (91400, "2.9.1", "a PyTorch"), (91501, "2.9.0", "PyTorch 2.9.1")],
)
def test_what_is_slow_is_told(installed: pytest.MonkeyPatch, cudnn: int, version: str, fix: str) -> None:
    installed.setattr(torch, "__version__", version)
    installed.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    with pytest.warns(RuntimeWarning, match=f"several times the memory .*under PyTorch {version}, .*; install {fix}"):
        checked_backend(CUDA, torch.bfloat16)


def test_what_cannot_be_at_fault_is_left_alone(installed: pytest.MonkeyPatch) -> None:
    checked_backend(torch.device("cpu"), torch.bfloat16)
    with torch.backends.cudnn.flags(enabled=False):
        checked_backend(CUDA, torch.bfloat16)
    installed.setattr(torch.version, "hip", "6.4")
    checked_backend(CUDA, torch.bfloat16)
    installed.undo()
    if not torch.cuda.is_available():
        assert known_faults(torch.backends.cudnn.version(), torch.__version__) == []
