"""What a probe found is told in words, and nothing that is not there."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest

from vaeport.mapping.flow import Flow, Use
from vaeport.port.findings import _attributes, concerns_of, to_write
from vaeport.port.probe import probe
from vaeport.port.request import Request
from vaeport.port.reuse import ReuseProof, reuse_proof
from vaeport.proof.sides import ReferenceSide
from vaeport.registry import ModelRegistry


@cache
def _probed(name: str) -> dict[str, Any]:
    arguments = {"mean": [0.1, 0.2, 0.3, 0.4]} if name == "Lists" else {}
    return probe(ReferenceSide(f"tests.port.officials:{name}", arguments))


def contract(name: str, **changed: Any) -> dict[str, Any]:
    return {**copy.deepcopy(_probed(name)), **changed}


QUIET = [
    "the class applies no latent normalisation; its caller does, or nobody",
    "decode does not clamp",
    "flag tile_size = 512: parity holds for this value",
    "flag use_tiling = False: parity holds for this value",
]


def test_a_plain_class_raises_few_concerns() -> None:
    assert concerns_of(contract("Image"), ()) == QUIET


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "Samples",
            "encode samples the posterior by itself; parity compares its mean (noise zero) and deviation (noise one)",
        ),
        ("MeanAlone", "posterior: mode only: the other half of the moments is never used by encode"),
        ("Scaled", "encode gives and decode takes normalised latents: (z - 0.25) * 0.5"),
        (
            "Standardised",
            "encode gives and decode takes normalised latents: (z - 4 numbers, first 0.1) * 4 numbers, first 0.5",
        ),
        ("Noisy", "decode gives other values when it is called again"),
        ("Idle", "weights that neither encode nor decode reads: loss.weight, loss.bias"),
        (
            "Refuses",
            "axis width: lengths 13, 14, 15 fail: refused: AssertionError: the width must be a multiple of 4",
        ),
    ],
)
def test_what_a_porter_must_not_overlook(name: str, line: str) -> None:
    assert line in concerns_of(contract(name), ())
    assert line not in concerns_of(contract("Image"), ())


def test_clamps_are_no_concern() -> None:
    assert "decode does not clamp" not in concerns_of(contract("Clamps"), ())


def test_stubs_unknown_moments_rules_and_pieces() -> None:
    assert concerns_of(contract("Image"), ("xformers", "apex"))[0] == (
        "modules that the source imports are missing and were stubbed: xformers, apex; calling one raises"
    )
    assert "the order of the moments could not be seen; only what encode gives is compared" in concerns_of(
        contract("Image", moments_order="unknown"), ()
    )
    broken = contract("Image")
    broken["axes"][0]["rule_held"] = False
    assert concerns_of(broken, ())[1].startswith("axis height: no rule of the form a + b k holds: {")
    pieces = {"encode": [1, 4, 4], "decode": [3]}
    assert concerns_of(contract("Video", chunks=pieces), ())[-1] == (
        "encode runs in pieces: the first layer sees [1, 4, 4] frames, padding included"
    )
    assert not any("pieces" in line for line in concerns_of(contract("Video"), ()))


def order(name: str, proof: ReuseProof | None = None) -> str:
    found = contract(name)
    flow = Flow.from_json(found["flow"])
    request = Request(f"tests.port.officials:{name}", "made_up", arguments={"width": 8})
    return to_write(request, found, flow, proof or ReuseProof("port", None, ["looked at kl"], ["no model is near"]))


def test_the_order_to_write_a_model() -> None:
    text = order("Standardised")
    lines = text.splitlines()
    assert lines[0] == "# Write this model: made_up"
    assert "`Standardised` is none of the native models. Write" in lines
    assert "`src/vaeport/models/made_up.py` (arch config, encoder, decoder, contract, `EntryClass` last) with" in lines
    assert ' "width": 8' in lines
    assert '- modality: "image"' in lines
    assert "- latent_channels: 4" in lines
    assert any(line.startswith("- axis width: 4 k; {") for line in lines)
    assert (
        '- normalization: {"where": "inside", "shift": [0.1, -0.2, 0.3, 0.0], "scale": [0.5, 2.0, 1.25, 0.8]}' in lines
    )
    assert "- reach, decode width: input 1 of 3 gives 4 to 7 of 12, causal" in lines
    assert "None." in lines
    assert "- no model is near" in lines
    assert "- looked at kl" in lines
    assert text.endswith("|\n")


def test_the_graph_is_a_table_of_every_operation() -> None:
    rows = [row.split(" | ") for row in order("Clamps").splitlines() if row.startswith(("| linear", "| transposed"))]
    assert [(row[0].strip("| "), *row[1:4]) for row in rows] == [
        ("linear", "down.weight, down.bias", "8x3x4x4", "media"),
        ("linear", "moments.weight, moments.bias", "8x8", "down.weight"),
        ("linear", "lift.weight, lift.bias", "8x4", "latent"),
        ("transposed", "up.weight, up.bias", "8x3x4x4", "lift.weight"),
    ]
    assert [row[4] for row in rows] == ["stride [4, 4]", "", "", "stride [4, 4], transposed True"]
    assert [row[5].strip(" |") for row in rows] == ["", "silu", "", "silu"]


def test_attributes_at_rest_are_left_out() -> None:
    """But one group of a norm is not at rest."""
    uses = [
        Use((), attributes={"stride": [1], "padding": [0], "dilation": [2], "transposed": False, "groups": 1}),
        Use((), attributes={"groups": 1, "eps": 1e-6}),
        Use((), attributes={"stride": [1, 2, 2], "padding": [0, 0, 0], "groups": 4}),
    ]
    assert [_attributes(use) for use in uses] == ["dilation [2]", "groups 1, eps 1e-06", "stride [1, 2, 2], groups 4"]


def test_the_nearest_relative_and_the_difference_to_it() -> None:
    found = contract("Image")
    flow = Flow.from_json(found["flow"])
    proof = reuse_proof(flow, found, {}, (ModelRegistry.find("oobleck"),))
    assert proof.verdict == "port"
    assert proof.nearest is not None
    text = order("Image", proof)
    assert f"{proof.nearest.name}, {proof.nearest.similarity:.0%} of the elements in weights of equal shape." in text
    assert "- modality: native audio, official image" in text
    assert all(f"- {line}" in text for line in (*proof.differences, *proof.evidence))
