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
from vaeport.proof.draw import draw_state

NAMES = golden_names()
# Tensors and parameters of the published files.
PUBLISHED = {
    "ldm_sd1": (248, 83_653_863),
    "flux1": (244, 83_819_683),
    "wan2_1": (194, 126_892_531),
    "stable_audio_2_0": (365, 156_112_514),
    "wan2_2": (196, 704_688_668),
    **dict.fromkeys(("hunyuan_video", "gamecraft", "gamecraft_open"), (248, 246_478_803)),
    # with the latent statistics, which lie in the file: 2 x 128
    "ltxv_0_9_0": (190, 419_193_905),
    "ltxv_0_9_1": (294, 934_976_690),
    "ltxv_0_9_5": (226, 1_246_913_778),
    "ltx2_0": (184, 1_222_479_857),
    "ltx2_3": (170, 726_106_225),
}
LTX = [name for name in NAMES if name.startswith("ltx")]
TIMESTEP = ("ltxv_0_9_1", "ltxv_0_9_5")
HUNYUAN = ("hunyuan_video", "gamecraft", "gamecraft_open")
# Drawing them takes minutes.
LARGE = [pytest.param(name, marks=pytest.mark.full) if PUBLISHED[name][1] > 2e8 else name for name in NAMES]
WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
WAN_MEAN += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
WAN_STD += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
WAN22_MEAN = (-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891)
WAN22_MEAN += (0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502)
WAN22_MEAN += (-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723)
WAN22_MEAN += (-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667)
WAN22_STD = (0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901)
WAN22_STD += (0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659)
WAN22_STD += (0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944)
WAN22_STD += (0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744)


def equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).norm() <= 1e-14 * expected.norm())


def patched(video: torch.Tensor, size: int) -> torch.Tensor:
    """What the last convolution gave: its channels are (colour, column, row) of each patch, outermost first."""
    batch, colours, frames, height, width = video.shape
    split = video.reshape(batch, colours, frames, height // size, size, width // size, size)
    return split.permute(0, 1, 6, 4, 2, 3, 5).reshape(batch, -1, frames, height // size, width // size)


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
    assert (conditions["attention_entropy"] is None) == (name == "stable_audio_2_0" or name in LTX)
    if conditions["attention_entropy"]:
        assert 0.05 <= min(conditions["attention_entropy"]) <= max(conditions["attention_entropy"]) <= 0.95
    if name != "stable_audio_2_0":
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
    assert set(provenance["versions"]) == {"torch", "numpy", *ORACLES[name].packages}
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
        assert described["calls"] == 1 or name in ("wan2_1", "wan2_2")
    if name in LTX or name == "wan2_2":
        return  # what the last convolution gives becomes pixels in patches: see below
    hunyuan = {
        "encode_video.quant_conv": "encode_video.moments",
        "decode_video.decoder.conv_out.conv": "decode_video.video",
    }
    last = {
        **dict.fromkeys(HUNYUAN, hunyuan),
        "ldm_sd1": {"encode.quant_conv": "encode.moments", "decode.decoder.conv_out": "decode.image"},
        "flux1": {"encode.encoder.conv_out": "encode.moments", "decode.decoder.conv_out": "decode.image"},
        "wan2_1": {"encode_video.conv1": "encode_video.moments", "decode_video.decoder.head.2": "decode_video.video"},
        "stable_audio_2_0": {"encode.encoder.layers.7": "encode.moments", "decode.decoder.layers.7": "decode.audio"},
    }[name]
    for tap, output in last.items():
        assert torch.equal(golden.taps[tap], subsample(golden.outputs[output]))
        assert golden.rms(tap) == pytest.approx(golden.outputs[output].square().mean().sqrt().item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_published_file(name: str) -> None:
    layout = load_golden(name).provenance["weights"]["layout"]
    assert (len(layout), sum(math.prod(shape) for shape in layout.values())) == PUBLISHED[name]


@pytest.mark.parametrize("name", LARGE)
def test_weights_can_be_drawn_again(name: str) -> None:
    golden = load_golden(name)
    state = golden.published_state()
    prefix = golden.provenance["weights"]["key_prefix"]
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


def test_wan22_outputs_follow_from_the_moments() -> None:
    golden = load_golden("wan2_2")
    out = golden.outputs
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 48, 1, 1, 1) for values in (WAN22_MEAN, WAN22_STD))
    for case in ("encode_image", "encode_video", "encode_6x32x16"):
        moments = out[f"{case}.moments"]
        assert equal(out[f"{case}.latent"], (moments[:, :48] - mean) / std)
    assert torch.equal(golden.taps["encode_video.conv1"], subsample(out["encode_video.moments"]))
    assert torch.equal(golden.taps["decode_video.decoder.head.2"], subsample(patched(out["decode_video.video"], 2)))
    # the sixth frame is one too few for a second chunk, and is dropped
    assert out["encode_6x32x16.moments"].shape == (1, 96, 2, 2, 1)
    assert out["decode_video.video"].shape == (1, 3, 9, 32, 48)
    assert equal(out["decode_image.clamped"], out["decode_image.video"].clamp(-1, 1))
    assert {place.split(" ")[0] for place in golden.provenance["promoted_to_float64"]} >= {"wan/modules/vae2_2.py:68:"}


@pytest.mark.parametrize("name", HUNYUAN)
def test_hunyuan_outputs_follow_from_the_moments(name: str) -> None:
    out = load_golden(name).outputs
    for case, shape in {
        "encode_image": (2, 32, 1, 3, 5),
        "encode_video": (2, 32, 3, 2, 3),
        # a part of a latent's height and width makes a latent, a part of its frames makes none, unless convolutions
        # look ahead as far as back
        "encode_6x20x23": (1, 32, 2, 3, 3),
    }.items():
        assert out[f"{case}.moments"].shape == shape
        assert equal(out[f"{case}.latent"], 0.476986 * out[f"{case}.moments"][:, :16])
    expected = (4, 12) if name == "gamecraft_open" else (1, 9)
    assert tuple(out[f"{case}.video"].shape[2] for case in ("decode_image", "decode_video")) == expected


def test_gamecraft_is_hunyuan_video_unless_its_options_say_otherwise() -> None:
    hunyuan, same, other = (load_golden(name) for name in HUNYUAN)
    assert hunyuan.provenance["weights"]["fingerprint"] == same.provenance["weights"]["fingerprint"]
    for key, value in hunyuan.outputs.items():
        assert (same.outputs[key] - value).norm() <= 1e-12 * value.norm()
        # of one frame, all padding is that frame
        if value.shape == other.outputs[key].shape and not key.startswith("encode_image"):
            assert (other.outputs[key] - value).norm() > 0.01 * value.norm()


@pytest.mark.parametrize("name", LTX)
def test_ltx_outputs_follow_from_the_moments(name: str) -> None:
    golden = load_golden(name)
    out, taps, weights = golden.outputs, golden.taps, golden.provenance["weights"]
    keys = [f"per_channel_statistics.{which}-of-means" for which in ("mean", "std")]
    drawn = draw_state({key: weights["layout"][key] for key in keys}, weights["seed"])
    mean, std = (drawn[key].double().view(1, 128, 1, 1, 1) for key in keys)
    cases = [key.rpartition(".")[0] for key in out if key.endswith(".moments")]
    assert len(cases) == (2 if name == "ltxv_0_9_5" else 3)
    for case in cases:
        moments = out[f"{case}.moments"]
        assert moments.shape[1] == 256
        assert torch.equal(moments[:, 129:], moments[:, 128:129].expand(-1, 127, -1, -1, -1))
        assert equal(out[f"{case}.latent"], (moments[:, :128] - mean) / std)
    assert torch.equal(taps["encode_video.encoder.conv_out.conv"], subsample(out["encode_video.moments"][:, :129]))
    red = patched(out["decode_video.red"], 4)
    assert torch.equal(taps["decode_video.decoder.conv_out.conv"][:, :1], subsample(red)[:, :1])
    assert red.shape == (1, 16, 9, 16, 16)


@pytest.mark.parametrize("name", TIMESTEP)
def test_ltx_video_mixes_noise_into_the_normalised_latent(name: str) -> None:
    golden = load_golden(name)
    z, noise = golden.inputs["decode_mixed.z"], golden.inputs["decode_mixed.noise"]
    assert equal(golden.outputs["decode_mixed.mixed"], 0.975 * z + 0.025 * noise)
    maps = [key for key in golden.inputs if ".noise_" in key]
    assert len(maps) == (3 * 36 if name == "ltxv_0_9_1" else 0)
    for case in ("decode_image", "decode_video", "decode_mixed") if maps else ():
        height, width = golden.inputs[f"{case}.z"].shape[-2:]
        for index in range(36):
            # two for each of 7, 6 and 5 blocks, twice as wide from stage to stage
            factor = 2 if index < 14 else 4 if index < 26 else 8
            assert golden.inputs[f"{case}.noise_{index:02}"].shape == (factor * height, factor * width)


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
