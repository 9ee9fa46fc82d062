"""From names to a proof: what the reference is told, and which configuration is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.narrow import HUNYUAN, LTX2, LTX5, WAN, WAN22, reference
from vaeport.errors import ConfigError, ProofError
from vaeport.models.gamecraft import GameCraft
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.models.ltx_video import LTXVideo
from vaeport.models.wan2_2 import Wan22
from vaeport.proof.setup import _arch, _switches, prove, timestep_argument


class Told:
    """Takes a timestep by the name that the official class has."""

    def decode(self, z: Any, timestep: Any = None) -> Any: ...


@pytest.mark.parametrize(
    ("reference", "value", "expected"),
    [
        ("diffusers:AutoencoderKLLTXVideo", 0.05, {"temb": {"per_sample": 0.05}}),
        ("diffusers:AutoencoderKLLTXVideo", None, {}),
        ("diffusers:AutoencoderKLWan", 0.05, {}),
        (f"{__name__}:Told", 0.1, {"timestep": {"per_sample": 0.1}}),
    ],
)
def test_a_reference_that_knows_a_timestep_is_told_it(reference: str, value: float | None, expected: object) -> None:
    assert timestep_argument(reference, value) == expected


@pytest.mark.parametrize(
    ("tiling", "expected"),
    [
        (None, (False, False, False)),
        ("diffusers", (True, True, True)),
        ("diffusers-spatial", (True, False, False)),
        ("diffusers-framewise", (False, True, True)),
    ],
)
def test_switches_of_tiling_are_set_as_meant(tiling: str | None, expected: tuple[bool, ...]) -> None:
    """Framewise tiling is on by default in Diffusers' HunyuanVideo."""
    theirs = reference(HUNYUAN)
    assert theirs.use_framewise_decoding is True
    names = ("use_tiling", "use_framewise_encoding", "use_framewise_decoding")
    assert _switches(theirs, tiling) == dict(zip(names, expected, strict=True))
    assert _switches(object(), tiling) == {}


def write(folder: Path, published: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(published))
    return path


@pytest.mark.parametrize(("model", "arch"), [(Wan22, WAN22), (LTXVideo, LTX5), (HunyuanVideo, HUNYUAN)])
def test_a_config_file(model: Any, arch: Any, tmp_path: Path) -> None:
    assert _arch(model, None, write(tmp_path, arch.to_published())) == arch


@pytest.mark.parametrize(
    ("model", "arch", "found"),
    [
        (Wan22, WAN, "no is_residual: this is Wan 2.1's VAE (z16)"),
        (LTXVideo, LTX2, "AutoencoderKLLTX2Video"),
        (GameCraft, HUNYUAN, "no mid_block_causal_attn: this is HunyuanVideo's VAE"),
    ],
)
def test_a_config_of_another_model(model: Any, arch: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the config is another model's") as refused:
        _arch(model, None, write(tmp_path, arch.to_published()))
    assert refused.value.found == found


def test_variants() -> None:
    assert _arch(Wan22, None, None) == Wan22.variants["wan2.2"]
    assert _arch(LTXVideo, "ltxv-0.9.1", None) == LTXVideo.variants["ltxv-0.9.1"]
    with pytest.raises(ConfigError, match="LTXVideo has several configurations") as refused:
        _arch(LTXVideo, None, None)
    assert refused.value.expected == "one of ltxv-0.9.0, ltxv-0.9.1, ltxv-0.9.5"
    with pytest.raises(ConfigError, match="LTXVideo has no configuration `ltxv-1`"):
        _arch(LTXVideo, "ltxv-1", None)


def test_types_without_a_gate_are_refused() -> None:
    with pytest.raises(ProofError, match="no gate P for `float64`"):
        prove(reference="diffusers:AutoencoderKLWan", native="wan2_2", dtypes=("float64",))
