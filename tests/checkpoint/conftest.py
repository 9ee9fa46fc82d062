"""Real checkpoint files, and the check that an error says what, where, expected, found and fix."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vaeport.errors import VaeportError

Refuses = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """A small state with the shapes, dtypes and strides that checkpoints have."""
    generator = torch.Generator().manual_seed(0)
    state = {
        f"decoder.up.{i}.block.{j}.conv1.weight": torch.randn(8, 4 * (i + 1), 3, 3, generator=generator)
        for i in range(3)
        for j in range(2)
    }
    state["decoder.norm_out.bias"] = torch.randn(8, generator=generator).bfloat16()
    state["quant_conv.weight"] = torch.randn(6, 5, generator=generator).t()
    state["scale"] = torch.tensor(0.18215, dtype=torch.float64)
    state["empty"] = torch.zeros(0, 3)
    state["steps"] = torch.arange(7)
    return state


@pytest.fixture
def config() -> dict[str, Any]:
    return {"_class_name": "AutoencoderKL", "_diffusers_version": "0.32.0", "latent_channels": 4}


@pytest.fixture
def refuses() -> Refuses:
    """Expect exactly this error: its type, and each part of its message."""

    @contextmanager
    def expect(
        kind: type[VaeportError], what: str, *, where: object, expected: str = "", found: str = "", fix: str = ""
    ) -> Iterator[None]:
        with pytest.raises(VaeportError) as caught:
            yield
        error = caught.value
        assert type(error) is kind, str(error)
        assert error.what == what
        assert str(where) in str(error.where), str(error)
        for part, text in (("expected", expected), ("found", found), ("fix", fix)):
            assert text in (getattr(error, part) or ""), f"{part}: {text!r} is not in\n{error}"
        assert str(error).replace("\n", "").isprintable()

    return expect


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """A safetensors file with any header, sound or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.fixture
def write_safetensors(tmp_path: Path) -> Callable[[Mapping[str, Any] | bytes, bytes], Path]:
    def write(header: Mapping[str, Any] | bytes, data: bytes) -> Path:
        path = tmp_path / "made.safetensors"
        path.write_bytes(safetensors_bytes(header, data))
        return path

    return write
