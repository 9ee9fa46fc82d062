"""The code in docs/diffusers.md runs in its order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from tests.interop.pipelines import clip, original, stable_diffusion
from vaeport.runtime.parallel import ParallelTiledVAE

PAGE = Path(__file__).parents[2] / "docs" / "diffusers.md"


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stable_diffusion(original("kl"), **clip()).save_pretrained("sd")
    first, second, third, fourth = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(first, names)
    assert names["image"].size == (32, 32)  # type: ignore[attr-defined]
    exec(second, names)
    pipe: Any = names["pipe"]
    assert type(names["again"].vae) is diffusers.AutoencoderKL  # type: ignore[attr-defined]
    assert hasattr(pipe.vae, "native")
    exec(third, names)
    assert isinstance(pipe.vae.ways.running("decode", torch.zeros(1), pipe.vae), ParallelTiledVAE)
    exec(fourth, names)
    assert pipe.vae.use_tiling
