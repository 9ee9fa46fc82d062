"""Every golden capture is whole, says where it comes from, and agrees with itself and with what is published."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch

from tests.golden import golden_names, load_golden, subsample
from tests.golden.load import FOLDER
from tests.golden.official import SOURCES
from tests.golden.oracles import ORACLES
from vaeport.errors import ProofError

NAMES = golden_names()
# Tensors and parameters of the published files.
PUBLISHED = {
    "ldm_sd1": (248, 83_653_863),
    "flux1": (244, 83_819_683),
    "wan2_1": (194, 126_892_531),
    "stable_audio_2_0": (365, 156_112_514),
}
WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
WAN_MEAN += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
WAN_STD += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


def equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).norm() <= 1e-14 * expected.norm())


def test_every_oracle_is_captured() -> None:
    assert set(NAMES) == set(ORACLES) == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_is_small_finite_and_not_degenerate(name: str) -> None:
    golden = load_golden(name)
    assert (FOLDER / f"{name}.safetensors").stat().st_size <= 1_000_000
    for part in (golden.inputs, golden.outputs, golden.taps):
        assert part
        for key, value in part.items():
            assert value.dtype == torch.float64
            assert torch.isfinite(value).all(), key
            assert value.std() > 0, key
    assert golden.outputs.keys() == golden.provenance["outputs"].keys()
    conditions = golden.provenance["conditions"]
    assert conditions["change_by_one_ulp"] <= 1e-12
    assert 0.05 <= conditions["activation_rms"][0] < conditions["activation_rms"][1] <= 20
    if name != "stable_audio_2_0":
        assert 0.05 <= min(conditions["attention_entropy"]) <= max(conditions["attention_entropy"]) <= 0.95
        assert any(value.shape[-1] != value.shape[-2] for value in golden.inputs.values())
    assert any(value.shape[0] == 2 for key, value in golden.inputs.items() if key.startswith("encode"))
    assert any(value.shape[0] == 2 for key, value in golden.inputs.items() if key.startswith("decode"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_differ_from_sample_to_sample(name: str) -> None:
    for key, value in load_golden(name).outputs.items():
        if value.shape[0] > 1:
            assert (value[0] - value[1]).norm() > 0.1 * value.norm(), key


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_says_where_it_comes_from(name: str) -> None:
    provenance = load_golden(name).provenance
    recorded = json.loads(SOURCES.read_text("utf-8"))[provenance["repo"].removeprefix("https://github.com/")]
    assert re.fullmatch("[0-9a-f]{40}", provenance["commit"])
    assert provenance["commit"] == recorded["commit"]
    assert provenance["files"] == recorded["files"]
    assert provenance["files"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in provenance["files"].values())
    assert isinstance(provenance["weights"]["seed"], int)
    assert provenance["class"].count(".") >= 2
    assert provenance["arguments"]
    assert set(provenance["versions"]) == {"torch", "numpy"}
    assert all("outside" not in place for place in provenance["promoted_to_float64"])
    readme = (FOLDER / "README.md").read_text("utf-8")
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
    assert recorded["commit"] in row
    assert any(f"`{file}` `{digest}`" in row for file, digest in recorded["files"].items())


@pytest.mark.parametrize("name", NAMES)
def test_taps_reach_every_depth_and_meet_the_outputs(name: str) -> None:
    golden = load_golden(name)
    assert golden.taps.keys() == golden.provenance["taps"].keys()
    for side in ("encoder", "decoder"):
        assert len([tap for tap in golden.taps if f".{side}." in tap]) >= 8
    for tap, value in golden.taps.items():
        described = golden.provenance["taps"][tap]
        assert value.shape == subsample(torch.empty(described["shape"])).shape
        assert 0.05 <= golden.rms(tap) <= 20
        assert described["calls"] == 1 or name == "wan2_1"
    last = {
        "ldm_sd1": {"encode.quant_conv": "encode.moments", "decode.decoder.conv_out": "decode.image"},
        "flux1": {"encode.encoder.conv_out": "encode.moments", "decode.decoder.conv_out": "decode.image"},
        "wan2_1": {"encode_video.conv1": "encode_video.moments", "decode_video.decoder.head.2": "decode_video.video"},
        "stable_audio_2_0": {"encode.encoder.layers.7": "encode.moments", "decode.decoder.layers.7": "decode.audio"},
    }[name]
    for tap, output in last.items():
        assert torch.equal(golden.taps[tap], subsample(golden.outputs[output]))
        assert golden.rms(tap) == pytest.approx(golden.outputs[output].square().mean().sqrt().item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_can_be_drawn_again(name: str) -> None:
    golden = load_golden(name)
    state = golden.published_state()
    prefix = golden.provenance["weights"]["key_prefix"]
    assert (len(state), sum(value.numel() for value in state.values())) == PUBLISHED[name]
    assert all(key.startswith(prefix) and value.dtype == torch.float32 for key, value in state.items())


def test_other_weights_are_noticed() -> None:
    golden = load_golden("flux1")
    few = {"layout": {"encoder.conv_in.weight": [128, 3, 3, 3]}, "seed": 2, "scale": {}}
    weights = golden.provenance["weights"] | few
    changed = dataclasses.replace(golden, provenance=golden.provenance | {"weights": weights})
    with pytest.raises(ProofError, match="flux1"):
        changed.state()


def test_ldm_outputs_follow_from_the_moments() -> None:
    golden = load_golden("ldm_sd1")
    out = golden.outputs
    mean, logvar = out["encode.moments"].chunk(2, dim=1)
    assert torch.equal(out["encode.mode"], mean)
    assert equal(out["encode.std"], (logvar / 2).exp())
    assert equal(out["encode.sample"], mean + (logvar / 2).exp() * golden.inputs["encode.noise"])
    assert equal(out["encode.latent"], 0.18215 * mean)
    far = golden.inputs["far.moments"].chunk(2, dim=1)[1]
    assert far.min() < -30
    assert far.max() > 20
    assert equal(out["far.std"].log(), far.clamp(-30, 20) / 2)
    assert out["encode_44x52.moments"].shape == (1, 8, 5, 6)


def test_flux_outputs_follow_from_the_moments() -> None:
    golden = load_golden("flux1")
    mean, _ = golden.outputs["encode.moments"].chunk(2, dim=1)
    assert equal(golden.outputs["encode.latent"], 0.3611 * (mean - 0.1159))
    assert golden.outputs["encode_44x52.moments"].shape == (1, 32, 5, 6)


def test_wan_outputs_follow_from_the_moments() -> None:
    golden = load_golden("wan2_1")
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 16, 1, 1, 1) for values in (WAN_MEAN, WAN_STD))
    for case in ("encode_image", "encode_video", "encode_6x20x23"):
        moments = golden.outputs[f"{case}.moments"]
        assert equal(golden.outputs[f"{case}.latent"], (moments[:, :16] - mean) / std)
    assert golden.outputs["encode_video.moments"].shape == (2, 32, 3, 2, 3)
    assert golden.outputs["encode_6x20x23.moments"].shape == (1, 32, 2, 2, 2)
    decoded, clamped = golden.outputs["decode_image.video"], golden.outputs["decode_image.clamped"]
    assert equal(clamped, decoded.clamp(-1, 1))
    assert 0 < golden.provenance["conditions"]["clamped"] <= 0.1
    # The official upsampling rounds to float32; the truth must not.
    assert {place.split(" ")[0] for place in golden.provenance["promoted_to_float64"]} >= {"wan/modules/vae.py:63:"}


def test_stable_audio_outputs_follow_from_the_moments() -> None:
    golden = load_golden("stable_audio_2_0")
    out, noise = golden.outputs, golden.inputs["encode.noise"]
    mean, scale = out["encode.moments"].chunk(2, dim=1)
    std = torch.nn.functional.softplus(scale) + 1e-4
    assert torch.equal(out["encode.mean"], mean)
    assert equal(out["encode.std"], std)
    assert equal(out["encode.sample"], mean + std * noise)
    assert torch.equal(out["encode.latent"], out["encode.sample"])
    assert golden.inputs["encode.x"].shape[-1] % 2048 != 0
    assert out["decode.audio"].shape[-1] == 2048 * golden.inputs["decode.z"].shape[-1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 40, 56), (2, 96, 9, 16, 24), (3, 2, 5000)])
def test_a_subsample_has_the_corners(shape: tuple[int, ...]) -> None:
    activation = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    taken = subsample(activation)
    assert taken.flatten()[0] == activation.flatten()[0]
    assert taken.flatten()[-1] == activation.flatten()[-1]
    assert taken.unique().numel() == taken.numel() <= 400
