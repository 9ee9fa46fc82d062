"""Draws are the same everywhere, are of the documented kinds, and refuse what they do not know."""

from __future__ import annotations

import zlib

import pytest
import torch

from vaeport.errors import ProofError
from vaeport.proof.draw import draw_input, draw_media, draw_state

SHAPES = {
    "encoder.conv.weight": (64, 32, 3, 3),
    "encoder.conv.bias": (4096,),
    "encoder.norm.weight": (4096,),
    "encoder.norm.gamma": (4096, 1, 1, 1),
    "decoder.conv.weight_g": (4096, 1, 1),
    "decoder.conv.weight_v": (64, 128, 7),
    "decoder.up.parametrizations.weight.original0": (4096, 1, 1),
    "decoder.up.parametrizations.weight.original1": (64, 64, 8),
    "decoder.snake.alpha": (1, 4096, 1),
    "decoder.snake.beta": (4096,),
    "decoder.up.scale_shift_table": (4, 4096),
    "decoder.last_scale_shift_table": (2, 4096),
    "decoder.up.per_channel_scale2": (4096, 1, 1),
    "statistics.std-of-means": (4096,),
    "statistics.running_var": (4096,),
    "statistics.mean-of-means": (4096,),
}
# Golden captures store the seed of their weights, not the weights: a numpy that draws others must fail here first.
CHECKSUMS = {
    "encoder.conv.weight": 1318859353,
    "encoder.norm.gamma": 2053136990,
    "decoder.conv.weight_g": 2706886512,
    "decoder.snake.alpha": 250126907,
    "statistics.running_var": 398883551,
}


def checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.contiguous().numpy().tobytes())


def test_other_keys_and_their_order_change_nothing() -> None:
    whole = draw_state(SHAPES, seed=3)
    for key in reversed(SHAPES):
        assert torch.equal(draw_state({key: SHAPES[key]}, seed=3)[key], whole[key])


def test_seed_and_key_change_everything() -> None:
    shape = (64, 64)
    draws = [draw_state({key: shape}, seed)[key] for key in ("a.weight", "b.weight") for seed in (0, 1)]
    draws += [draw_input("a.weight", shape, 0).float()]
    correlation = torch.corrcoef(torch.stack(draws).flatten(1)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.1


@pytest.mark.parametrize("key", CHECKSUMS)
def test_values_are_the_same_in_every_version(key: str) -> None:
    assert checksum(draw_state(SHAPES, seed=20)[key]) == CHECKSUMS[key]


def test_latents_are_the_same_in_every_version() -> None:
    assert checksum(draw_input("z", (2, 4, 5, 7), seed=20)) == 172838037


@pytest.mark.parametrize(
    ("key", "mean", "std"),
    [
        ("encoder.conv.weight", 0, (32 * 9) ** -0.5),
        ("decoder.conv.weight_v", 0, (128 * 7) ** -0.5),
        ("decoder.up.parametrizations.weight.original1", 0, (64 * 8) ** -0.5),
        ("encoder.norm.weight", 1, 0.2),
        ("encoder.norm.gamma", 1, 0.2),
        ("decoder.conv.weight_g", 1, 0.2),
        ("decoder.up.parametrizations.weight.original0", 1, 0.2),
        ("encoder.conv.bias", 0, 0.2),
        ("decoder.snake.alpha", 0, 0.2),
        ("decoder.snake.beta", 0, 0.2),
        ("decoder.up.scale_shift_table", 0, 0.2),
        ("decoder.last_scale_shift_table", 0, 0.2),
        ("decoder.up.per_channel_scale2", 0, 0.2),
        ("statistics.mean-of-means", 0, 0.5),
        ("statistics.std-of-means", 1.25, 1.5 / 12**0.5),
        ("statistics.running_var", 1.25, 1.5 / 12**0.5),
    ],
)
def test_moments_are_those_of_the_kind(key: str, mean: float, std: float) -> None:
    drawn = draw_state(SHAPES, seed=1)[key]
    assert drawn.dtype == torch.float32
    assert tuple(drawn.shape) == SHAPES[key]
    assert drawn.mean().item() == pytest.approx(mean, abs=5 * std / drawn.numel() ** 0.5)
    assert drawn.std().item() == pytest.approx(std, rel=0.06)


def test_spreads_and_lengths_are_positive() -> None:
    # With this seed one length would be -0.025 without its absolute value.
    drawn = draw_state({"a.std": (10_000,), "b.weight_g": (1_000_000, 1)}, seed=1)
    assert drawn["a.std"].min() >= 0.5
    assert drawn["a.std"].max() <= 2
    assert drawn["b.weight_g"].min() > 0


def test_a_fixed_weight_keeps_its_value() -> None:
    drawn = draw_state({"decoder.timestep_scale_multiplier": ()}, seed=1)["decoder.timestep_scale_multiplier"]
    assert drawn.dtype == torch.float32
    assert drawn.shape == ()
    assert drawn.item() == 1000


def test_scale_multiplies_exact_names_and_globs() -> None:
    plain = draw_state(SHAPES, seed=0)
    scaled = draw_state(SHAPES, seed=0, scale={"encoder.*": 0.5, "encoder.conv.bias": 4})
    for key, value in plain.items():
        factor = 2 if key == "encoder.conv.bias" else 0.5 if key.startswith("encoder.") else 1
        assert torch.equal(scaled[key], value * factor)


@pytest.mark.parametrize("key", ["proj.lookup_table", "attention.in_proj_weight", "norm.num_batches_tracked"])
def test_an_unknown_kind_is_refused_by_name(key: str) -> None:
    with pytest.raises(ProofError, match=key):
        draw_state({key: (4, 4)}, seed=0)


def test_a_scale_for_nothing_and_an_empty_shape_are_refused() -> None:
    with pytest.raises(ProofError, match=r"decoder\.head"):
        draw_state({"encoder.conv.weight": (4, 4)}, seed=0, scale={"decoder.head.*": 0.1})
    with pytest.raises(ProofError, match="nothing"):
        draw_state({"nothing.weight": (4, 0)}, seed=0)


@pytest.mark.parametrize("shape", [(2, 3, 44, 52), (2, 3, 9, 16, 24), (2, 2, 4873), (1, 1, 1, 1, 1)])
def test_media_is_smooth_and_stays_inside_its_range(shape: tuple[int, ...]) -> None:
    media = draw_media("x", shape, seed=5)
    assert media.dtype == torch.float64
    assert tuple(media.shape) == shape
    assert media.abs().max() < 0.95
    if media.numel() > 1:
        assert media.std() > 0.1
        neighbours = torch.stack([media[..., 1:].flatten(), media[..., :-1].flatten()])
        assert torch.corrcoef(neighbours)[0, 1] > 0.6
        assert not torch.equal(media[0], media[1])


def test_media_needs_an_axis_beyond_the_channels() -> None:
    with pytest.raises(ProofError, match="axis"):
        draw_media("x", (2, 3), seed=0)
