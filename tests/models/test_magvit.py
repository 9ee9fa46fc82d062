"""Magvit: Diffusers' class at narrow width, what each latent depends on, its lengths, its config, and its proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import (
    STREAMED,
    Cutting,
    assert_needs,
    assert_streams,
    cuttings,
    difference,
    filled,
    kept_alive,
    normal,
    singles,
)
from tests.narrow import MAGVIT, on_meta, reference, relative_errors, shapes
from vaeport.errors import ConfigError, InputError
from vaeport.layers import HEIGHT, TIME, WIDTH, GroupNorm, Pad, SelfAttention
from vaeport.mapping import plan
from vaeport.models.magvit import EntryClass, Magvit, MagvitArchConfig
from vaeport.proof.draw import draw_state
from vaeport.proof.prove import Proof
from vaeport.proof.sides import NativeSide, ReferenceSide
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.weights.magvit import DIFFUSERS, LAYOUTS

NARROW = MAGVIT
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms"""


@cache
def native() -> Magvit:
    """In float64. Shared by tests, so none may change it."""
    return filled(Magvit(NARROW))


@cache
def both(dtype: torch.dtype) -> tuple[Magvit, Any]:
    """The native model and Diffusers', with the same drawn weights."""
    theirs, ours = reference(NARROW), Magvit(NARROW)
    theirs.load_state_dict(draw_state(shapes(theirs), seed=1))
    theirs = theirs.to(dtype)
    state = theirs.state_dict()
    found = plan(DIFFUSERS, shapes(ours), shapes(theirs)).require("magvit", "fix the map")
    ours.load_state_dict(dict(found.convert(lambda key: state[key])), strict=True)
    return ours.to(dtype).requires_grad_(False), theirs


def video(*shape: int) -> Tensor:
    """Values in -1..1."""
    return normal(*shape).tanh()


def moments(x: Tensor) -> Tensor:
    return native().encode(x).latent_dist.parameters


# Values.


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_is_diffusers(frames: int, dtype: torch.dtype) -> None:
    """By its default path: frame 0 alone, then 4 frames or 1 latent at a time."""
    ours, theirs = both(dtype)
    x, z = video(2, 3, frames, 20, 25).to(dtype), normal(2, 4, (frames + 3) // 4, 2, 3).to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


def test_time_before_space() -> None:
    """Another order of levels, halving time once, one block per level."""
    arch = NARROW.replace(
        block_out_channels=(8, 16, 8),
        down_block_types=("SpatialTemporalDownBlock3D", "SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
        up_block_types=("SpatialUpBlock3D", "SpatialTemporalUpBlock3D", "SpatialUpBlock3D"),
        layers_per_block=1,
    )
    theirs, ours = reference(arch).double(), filled(Magvit(arch))
    found = plan(DIFFUSERS, shapes(ours), shapes(theirs)).require("magvit", "fix the map")
    state = ours.state_dict()
    theirs.load_state_dict({k: t for s in found.steps for k, t in s.write(state[s.native]).items()}, strict=True)
    assert max(relative_errors(ours, theirs, video(1, 3, 7, 8, 12), normal(1, 4, 4, 2, 3))) <= 1e-12
    assert [rule.multiple for rule in ours.contract.axes] == [2, 4, 4]


def test_a_still_clip_has_still_latents() -> None:
    """The past is frame 0, not zeros, and no norm counts frames."""
    still = video(1, 3, 1, 16, 24).expand(-1, -1, 9, -1, -1)
    z = moments(still)
    assert difference(z, z[:, :, :1].expand_as(z)) < 1e-13
    assert difference(z[:, :, :1], moments(still[:, :, :1])) < 1e-13
    y = native().decode(normal(1, 4, 1, 2, 3).expand(-1, -1, 3, -1, -1)).sample
    assert difference(y, y[:, :, :1].expand_as(y)) < 1e-13


def test_normalisation_and_clamp() -> None:
    """The pipelines scale latents; nobody clamps in the model."""
    z = 4 * normal(1, 4, 2, 2, 3)
    assert torch.equal(native().normalize(z), z * 0.3)
    assert torch.equal(native().denormalize(z), z / 0.3)
    assert difference(native().decode(z).sample, native().decoder(z)) <= STREAMED
    assert Magvit.contract_of(MagvitArchConfig()).scale == 0.7125
    assert Magvit.contract_of(MagvitArchConfig()).clamp is None


# Lengths.


@pytest.mark.parametrize("shape", [(1, 3, 1, 8, 8), (2, 3, 5, 20, 23), (1, 3, 9, 15, 8), (1, 3, 13, 8, 8)])
def test_shapes_are_those_of_the_contract(shape: tuple[int, ...]) -> None:
    vae = native()
    z = vae.encode(video(*shape)).latent_dist.mode()
    assert z.shape == vae.contract.latent_shape(shape)
    sample = vae.decode(z).sample
    assert sample.shape == vae.contract.decoded_shape(tuple(z.shape))
    assert sample.shape[2] == shape[2]


@pytest.mark.parametrize("frames", [2, 3, 4, 6, 7, 8])
def test_lengths_that_diffusers_fails_on(frames: int) -> None:
    x = video(1, 3, frames, 8, 8)
    theirs = reference(NARROW).double()
    with pytest.raises(ValueError, match="expected a non-empty list"):
        theirs.encode(x)
    for run in (lambda: native().encode(x), lambda: list(native().stream_encode(x.split(3, 2)))):
        with pytest.raises(InputError, match="takes no input of this length") as refused:
            run()
        assert (refused.value.where, refused.value.expected, refused.value.found) == ("axis time", "4k + 1", frames)
        assert str(1 + (frames + 2) // 4 * 4) in str(refused.value.fix)


# Streams.


@pytest.mark.parametrize("frames", [1, 5, 9])
@given(data=st.data())
@settings(max_examples=3)
def test_stream_encode(frames: int, data: st.DataObject) -> None:
    vae, x = native(), video(1, 3, frames, 8, 16)
    cutting: Cutting = data.draw(cuttings(frames) | st.just(singles(frames)))
    found = torch.cat([dist.parameters for dist in vae.stream_encode(x.split(cutting.sizes, 2))], 2)
    assert difference(found, vae.encoder(x)) <= STREAMED
    assert difference(moments(x), vae.encoder(x)) <= STREAMED


@pytest.mark.parametrize("latents", [1, 2, 4])
@given(data=st.data())
@settings(max_examples=3)
def test_stream_decode(latents: int, data: st.DataObject) -> None:
    vae, z = native(), normal(1, 4, latents, 1, 2)
    cutting: Cutting = data.draw(cuttings(latents) | st.just(singles(latents)))
    found = torch.cat(list(vae.stream_decode(z.split(cutting.sizes, 2))), 2)
    assert difference(found, vae.decoder(z)) <= STREAMED
    assert difference(vae.decode(z).sample, vae.decoder(z)) <= STREAMED


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
def test_bands(half: str, axis: int) -> None:
    """Norms over a frame make bands wait for all of it."""
    layer = getattr(native(), half)
    x = video(1, 3, 5, 17, 23) if half == "encoder" else normal(1, 4, 2, 2, 3)
    assert layer.needs((0, 1), axis) is None
    assert_streams(layer, x, axis, singles(x.shape[axis]))


def test_latents_come_as_soon_as_they_are_known() -> None:
    x, read = video(1, 3, 9, 8, 8), []

    def pieces() -> Iterator[Tensor]:
        for piece in x.split(1, 2):
            read.append(piece)
            yield piece

    assert [len(read) for _ in native().stream_encode(pieces())] == [1, 5, 9]


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_needs_what_it_says(half: str) -> None:
    """Nothing later than the frame itself; on the way out, nothing later than its latent."""
    layer = getattr(native(), half)
    assert_needs(layer, video(1, 3, 9, 8, 8) if half == "encoder" else normal(1, 4, 4, 1, 1), TIME)
    last = [layer.needs((n, n + 1), TIME)[1] for n in range(4)]
    assert last == ([1, 5, 9, 13] if half == "encoder" else [1, 2, 2, 2])


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_state_does_not_grow(half: str) -> None:
    """Not with the length of the stream, and not with the length of its pieces."""
    layer = getattr(native(), half)
    x = video(1, 3, 8, 8, 16) if half == "encoder" else normal(1, 4, 6, 1, 2)
    sizes = []
    for pieces in ([x], [x] * 3, [torch.cat([x] * 3, TIME)]):
        state = None
        for piece in pieces:
            _, state = layer.step(piece, state, False, TIME)
        sizes.append(kept_alive(state))
    assert 0 < max(sizes) <= 1.1 * sizes[0]


# Architecture and configuration.


def test_shapes_in_the_docstring() -> None:
    vae = on_meta(Magvit, MagvitArchConfig())
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 5, 16, 24))
        assert z.shape == (1, 32, 2, 2, 3)
        assert vae.decoder(z[:, :16]).shape == (1, 3, 5, 16, 24)
    assert sum(p.numel() for p in vae.parameters()) == 244_375_507
    assert len(vae.state_dict()) == 228
    assert not any(isinstance(layer, SelfAttention) for layer in vae.modules())


def test_published_configuration() -> None:
    """The variant is what Diffusers' class assumes, key by key."""
    arch = Magvit.variants["easyanimate-v5.1"]
    assert arch == MagvitArchConfig()
    with torch.device("meta"):
        theirs = type(reference(arch))()
    assert {k: v for k, v in theirs.config.items() if not k.startswith("_")} == {
        k: v for k, v in arch.to_published().items() if k != "_class_name"
    }
    assert MagvitArchConfig.from_published(arch.to_published()) == arch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"down_block_types": ("SpatialDownBlock3D",)}, "down_block_types must name one kind of block per width"),
        ({"up_block_types": ("SpatialDownBlock3D",) * 4}, "up_block_types must name one kind of block per width"),
        ({"up_block_types": ("SpatialUpBlock3D",) * 4}, "up_block_types double time as often"),
        ({"block_out_channels": (8, 8, 16, 18)}, r"\(18\) is not a multiple of norm_num_groups \(4\)"),
        ({"scaling_factor": 0.0}, "scaling_factor must be positive"),
        ({"out_channels": 4}, "in_channels and out_channels differ"),
    ],
)
def test_config_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NARROW.replace(**changes)


@pytest.mark.parametrize(("key", "value"), [("spatial_group_norm", False), ("act_fn", "relu")])
def test_other_architectures_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"`{key}` has a value that this architecture does not have"):
        MagvitArchConfig.from_published({**NARROW.to_published(), key: value})


def test_easyanimates_own_class_is_another() -> None:
    published = {"_class_name": "AutoencoderKLMagvit", "ch": 128, "ch_mult": [1, 2, 4, 4]}
    with pytest.raises(ConfigError, match="not in the library") as refused:
        ModelRegistry.find_published(published)
    assert "EasyAnimate's own class" in str(refused.value.found)
    assert ModelRegistry.find_published(NARROW.to_published()).model is Magvit


def test_saved_and_loaded(tmp_path: Path) -> None:
    vae = both(torch.float32)[0]
    vae.save(tmp_path)
    again = load(tmp_path)
    assert type(again) is Magvit
    assert again.arch == NARROW
    assert again.weights_hash() == vae.weights_hash()


def test_entry_class() -> None:
    assert EntryClass is Magvit


# Proof.


def narrow_proof(fault: Callable[[Magvit], Any] | None = None, **options: Any) -> Proof:
    def opened(path: Path) -> Any:
        vae = load(path)
        if fault is not None:
            fault(vae)
        return vae

    side = ReferenceSide("diffusers:AutoencoderKLMagvit", NARROW.to_published())
    return Proof(side, NativeSide("magvit", lambda: Magvit(NARROW), opened), LAYOUTS, **options)


def test_narrow_proof() -> None:
    verdict = narrow_proof(repeats=3).run()
    assert verdict, "\n".join(verdict.lines())
    assert {row.gate for row in verdict.rows} == {"S", "P float32", "P bfloat16", "D float32", "D bfloat16"}


def zeros_before(vae: Magvit) -> None:
    pad = vae.get_submodule("encoder.levels.2.blocks.1.main.conv2.past")
    assert isinstance(pad, Pad)
    pad.mode = "constant"


def other_eps(vae: Magvit) -> None:
    norm = vae.get_submodule("decoder.norm_out.layer")
    assert isinstance(norm, GroupNorm)
    norm.eps = 1e-5


@pytest.mark.parametrize("fault", [zeros_before, other_eps])
def test_faults_fail_gate_s(fault: Callable[[Magvit], Any]) -> None:
    verdict = narrow_proof(fault, dtypes=()).run()
    assert verdict.failed_gates() == {"S"}
