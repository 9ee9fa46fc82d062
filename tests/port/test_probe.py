"""The contract of implementations whose contract is known."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.narrow import ARCHS
from vaeport.errors import ProofError
from vaeport.mapping.flow import Flow
from vaeport.port.probe import probe
from vaeport.proof.calling import Convention
from vaeport.proof.sides import ReferenceSide
from vaeport.registry import ModelRegistry


@cache
def probed(name: str) -> dict[str, Any]:
    """The contract of a class in `officials`."""
    arguments = {"mean": [0.1, 0.2, 0.3, 0.4]} if name == "Lists" else {}
    return probe(ReferenceSide(f"tests.port.officials:{name}", arguments))


def axis(name: str, number: int) -> dict[str, Any]:
    found = probed(name)["axes"][number]
    assert isinstance(found, dict)
    return found


def test_an_image_vae() -> None:
    found = probed("Image")
    assert (found["modality"], found["layout"]) == ("image", "B C H W")
    assert (found["channels"], found["latent_channels"]) == (3, 4)
    assert (found["media"], found["latent"]) == ([1, 3, 8, 12], [1, 4, 2, 3])
    assert [(a["name"], a["multiple"], a["offset"], a["rule_held"]) for a in found["axes"]] == [
        ("height", 4, 0, True),
        ("width", 4, 0, True),
    ]
    assert found["decode"] == {"container": "Tensor", "clamp": None, "bounded_by": [], "deterministic": True}
    assert found["flags"] == {"tile_size": 512, "use_tiling": False}
    assert found["unused_weights"] == []
    assert found["calls_that_failed"] == []
    assert found["chunks"] == {}


def test_the_answer_is_plain_data() -> None:
    found = probed("Standardised")
    text = json.dumps(found)
    assert json.dumps(json.loads(text)) == text
    flow = Flow.from_json(found["flow"])
    assert [use.keys[0] for use in flow.uses] == ["down.weight", "moments.weight", "lift.weight", "up.weight"]
    assert Convention(**found["convention"]).moments == "moments"


@pytest.mark.parametrize(
    ("name", "posterior", "order", "sampled", "clamp", "module"),
    [
        ("Image", "gaussian-logvar", "mean first", False, [-30.0, 20.0], ""),
        ("NarrowClamp", "gaussian-logvar", "mean first", False, [-6.0, 2.0], ""),
        ("Samples", "gaussian-logvar", "mean second", True, None, "moments"),
        ("Softplus", "gaussian-softplus", "mean first", True, None, "moments"),
        ("Distribution", "gaussian-logvar", "mean first", True, None, "moments"),
        ("MeanAlone", "mode only: the other half of the moments is never used by encode", "mean first", False, None,
         "moments"),
        ("Chunked", "mode only: the other half of the moments is never used by encode", "mean first", False, None,
         "moments"),
        ("Audio", "gaussian-softplus", "mean first", True, None, "down"),
    ],
)  # fmt: skip
def test_posteriors(name: str, posterior: str, order: str, sampled: bool, clamp: Any, module: str) -> None:
    found = probed(name)
    assert found["posterior"] == posterior
    assert found["moments_order"] == order
    assert found["samples_by_itself"] is sampled
    assert found["logvar_clamp"] == clamp
    assert found["convention"]["moments"] == module


@pytest.mark.parametrize(
    ("name", "shift", "scale"),
    [
        ("Scaled", 0.25, 0.5),
        ("Standardised", [0.1, -0.2, 0.3, 0.0], [0.5, 2.0, 1.25, 0.8]),
        ("Lists", [0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_normalisation_inside_is_found_with_its_numbers(name: str, shift: Any, scale: Any) -> None:
    found = probed(name)
    assert found["normalization"] == {"where": "inside", "shift": shift, "scale": scale}
    assert found["convention"]["normalized"] is True
    assert found["posterior"] in ("gaussian-logvar", "mode only: the other half of the moments is never used by encode")


def test_normalisation_by_the_caller() -> None:
    for name in ("Image", "Samples", "Audio"):
        assert probed(name)["normalization"] == {"where": "caller"}
        assert probed(name)["convention"]["normalized"] is False


@pytest.mark.parametrize(
    ("name", "clamp", "bounded", "container"),
    [
        ("Clamps", [-1.0, 1.0], ["clamp(-1, 1)"], "tuple"),
        ("Tanh", [-1.0, 1.0], ["tanh"], "Tensor"),
        ("Lists", [-1.0, 1.0], ["clamp(-1, 1)"], "Tensor"),
        ("Pads", None, [], "Tensor"),
    ],
)
def test_decode(name: str, clamp: Any, bounded: list[str], container: str) -> None:
    found = probed(name)["decode"]
    assert (found["clamp"], found["bounded_by"], found["container"]) == (clamp, bounded, container)
    assert found["deterministic"] is True


def test_a_decode_that_draws_noise() -> None:
    assert probed("Noisy")["decode"]["deterministic"] is False


def test_lengths_that_break_the_rule() -> None:
    cropped = {"12": "3 latents, 12 decoded"} | {str(n): "3 latents, 12 decoded" for n in (13, 14, 15)}
    padded = {"12": "3 latents, 12 decoded"} | {str(n): "4 latents, 16 decoded" for n in (13, 14, 15)}
    refused = {"12": "3 latents, 12 decoded"} | {
        str(n): "refused: AssertionError: the width must be a multiple of 4" for n in (13, 14, 15)
    }
    for name, lengths in (("Image", cropped), ("Pads", padded), ("Refuses", refused)):
        assert axis(name, 1)["lengths"] == lengths
        assert axis(name, 1)["rule"] == "4 k"
        assert axis(name, 1)["rule_held"] is True
    assert axis("Refuses", 0)["lengths"]["9"] == "2 latents, 8 decoded"


def test_a_decoder_that_needs_more_than_one_latent() -> None:
    found = axis("Wide", 1)
    assert (found["multiple"], found["offset"], found["decoded_per_latent"], found["rule_held"]) == (4, 0, 4, True)


def test_causal_video() -> None:
    found = probed("Video")
    time = axis("Video", 0)
    assert (time["rule"], time["offset"], time["multiple"], time["legal"]) == ("1 + 4 k", 1, 4, 9)
    assert found["latent"] == [1, 4, 3, 2, 3]
    assert found["reach"]["encode time"] == {"input": "4 of 9", "outputs": "1 to 1 of 3", "causal": True, "all": False}
    assert found["reach"]["decode time"] == {"input": "1 of 3", "outputs": "1 to 4 of 9", "causal": True, "all": False}


def test_video_that_sees_the_future() -> None:
    found = probed("Blurred")
    assert (axis("Blurred", 0)["rule"], axis("Blurred", 0)["offset"]) == ("4 k", 0)
    assert found["reach"]["decode time"] == {"input": "1 of 2", "outputs": "0 to 7 of 8", "causal": False, "all": True}
    assert found["reach"]["decode height"]["outputs"] == "4 to 7 of 8"


def test_reach_without_numbers_that_are_none() -> None:
    """A distribution refuses them, so changes are looked for instead."""
    assert probed("Distribution")["reach"] == probed("Samples")["reach"]


def test_pieces_in_time() -> None:
    assert probed("Chunked")["chunks"] == {"encode": [4, 4, 4], "decode": [3]}
    assert probed("Video")["chunks"]["encode"] == [12]


def test_lists_of_samples() -> None:
    found = probed("Lists")
    assert found["convention"]["listed"] is True
    assert found["modality"] == "video"
    assert len(found["calls_that_failed"]) == 1
    assert found["calls_that_failed"][0].startswith("video, 3 channels: ")


def test_audio() -> None:
    found = probed("Audio")
    assert (found["modality"], found["layout"], found["channels"]) == ("audio", "B C S", 2)
    assert (axis("Audio", 0)["multiple"], axis("Audio", 0)["legal"]) == (8, 32)


def test_weights_that_nothing_reads() -> None:
    assert probed("Idle")["unused_weights"] == ["loss.weight", "loss.bias"]


def test_no_call_succeeds() -> None:
    with pytest.raises(ProofError, match="no call of encode and decode succeeds") as refused:
        probed("Conditioned")
    assert refused.value.where == "Conditioned"
    assert "image, 3 channels: TypeError" in str(refused.value.found)
    assert "'condition'" in str(refused.value.found)
    assert "--call-args" in (refused.value.fix or "")


def test_further_arguments_make_it_succeed() -> None:
    side = ReferenceSide(
        "tests.port.officials:Conditioned", {}, convention=Convention(encode_arguments={"condition": {"tensor": 0.5}})
    )
    found = probe(side)
    assert found["posterior"] == "gaussian-logvar"
    assert found["convention"]["encode_arguments"] == {"condition": {"tensor": 0.5}}


@pytest.mark.parametrize("name", ARCHS)
def test_probe_and_native_contract_agree(name: str) -> None:
    """Diffusers' class by its runs, ours by what it declares."""
    arch, model = ARCHS[name], ModelRegistry.find(name).model
    published = arch.to_published()
    contract = model.contract_of(arch)
    found = probe(ReferenceSide(f"diffusers:{published['_class_name']}", published))
    assert found["modality"] == contract.modality
    assert (found["channels"], found["latent_channels"]) == (contract.channels, contract.latent_channels)
    assert [(a["name"], a["multiple"], a["offset"]) for a in found["axes"]] == [
        (a.name, a.multiple, a.offset) for a in contract.axes
    ]
    assert found["posterior"] == contract.posterior
    assert found["moments_order"] == "mean first"
    assert found["normalization"] == {"where": "caller"}
    assert found["decode"]["clamp"] == (None if contract.clamp is None else list(contract.clamp))
    assert found["decode"]["deterministic"] is True
    assert all(a["rule_held"] for a in found["axes"])
    assert (tuple(found["latent"])) == contract.latent_shape(tuple(found["media"]))
    if contract.modality == "video":
        assert found["reach"]["encode time"]["causal"]
        assert found["reach"]["decode time"]["causal"]
        assert len(found["chunks"]["encode"]) == 3
    if name == "autoencoder_kl":
        assert found["logvar_clamp"] == [-30.0, 20.0]
        assert found["reach"]["decode height"]["all"]
    if name == "oobleck":
        assert not found["reach"]["decode samples"]["causal"]
