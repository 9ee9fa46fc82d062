"""Dry runs of the real maps: what fits, what does not and by which name, prefixes, halves, tensors there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.layers.laws import normal
from tests.narrow import KL, MODELS, OOBLECK8, on_meta, shapes, weight_map
from vaeport.errors import KeyMismatchError
from vaeport.mapping import Fuse, Layout, Plan, Rule, Units, plan
from vaeport.mapping.plan import Step
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.oobleck import Oobleck
from vaeport.weights.autoencoder_kl import DIFFUSERS, LDM
from vaeport.weights.oobleck import OFFICIAL

Shapes = dict[str, tuple[int, ...]]
KEY = "encoder.down.1.block.0.conv1.weight"


def native() -> Shapes:
    return shapes(on_meta(AutoencoderKL, KL))


def stored(layout: Layout = LDM, prefix: str = "", keys: Shapes | None = None) -> Shapes:
    """What a file of the layout holds."""
    keys = keys or native()
    steps = plan(layout, keys).steps
    empty = {step.native: torch.empty(step.shape, device="meta") for step in steps}
    found = {key: tuple(t.shape) for step in steps for key, t in step.write(empty[step.native]).items()}
    written = layout.prefixes[0]
    return {prefix + key.removeprefix(written): shape for key, shape in found.items()}


def test_fits() -> None:
    found = plan(LDM, native(), stored())
    assert found.fits
    assert found.require("here", "nothing") is found
    assert {step.native for step in found.steps} == set(native())
    assert (found.missing, found.unexpected, found.misshapen, found.dropped) == ((), (), (), {})


def test_missing_keys_are_named() -> None:
    keys = stored(prefix="vae.")
    del keys[f"vae.{KEY}"], keys["vae.decoder.mid.attn_1.k.bias"]
    found = plan(LDM, native(), keys)
    assert not found.fits
    assert set(found.missing) == {f"vae.{KEY}", "vae.decoder.mid.attn_1.k.bias"}
    assert "decoder.middle.attention.main.attention.qkv.bias" not in {step.native for step in found.steps}


def test_native_keys_without_a_rule_are_named() -> None:
    assert plan(LDM, {**native(), "encoder.time_embedding": (4,)}, stored()).missing == (
        "encoder.time_embedding (no rule)",
    )


def test_unexpected_keys_are_named() -> None:
    found = plan(LDM, native(), {**stored(), "encoder.down.4.block.0.conv1.weight": (1,), "decoder.scale": ()})
    assert set(found.unexpected) == {"encoder.down.4.block.0.conv1.weight", "decoder.scale"}
    assert not found.fits


def test_wrong_shapes_are_named() -> None:
    found = plan(LDM, native(), {**stored(), KEY: (16, 16, 3)})
    assert found.misshapen == (f"{KEY} [16, 16, 3] instead of [16, 16, 3, 3]",)
    assert not found.fits


def test_units_count_as_shape() -> None:
    """LDM's queries are 1x1 convolutions; matrices in their place are another layout's."""
    keys = {**stored(), "encoder.mid.attn_1.q.weight": (32, 32)}
    assert plan(LDM, native(), keys).misshapen == ("encoder.mid.attn_1.q.weight [32, 32] instead of [32, 32, 1, 1]",)


def test_require_tells_all() -> None:
    keys = {**stored(), KEY: (1,), **{f"more.{i}": (1,) for i in range(12)}}
    del keys["quant_conv.bias"]
    with pytest.raises(KeyMismatchError) as refused:
        plan(LDM, native(), keys).require("ae.safetensors", "choose another variant")
    error = refused.value
    assert (error.where, error.fix, error.expected) == ("ae.safetensors", "choose another variant", "layout 'ldm'")
    assert "1 missing: quant_conv.bias" in error.found
    assert "12 unexpected: more.0" in error.found
    assert "and 4 more" in error.found
    assert f"1 wrong shape: {KEY} [1] instead of [16, 16, 3, 3]" in error.found


def test_drops_carry_their_reason() -> None:
    found = plan(LDM, native(), {**stored(), "loss.discriminator.main.0.weight": (1,)})
    assert found.fits
    assert found.dropped == {"loss.discriminator.main.0.weight": "the discriminator and perceptual loss of training"}


@pytest.mark.parametrize("prefix", LDM.prefixes)
def test_prefixes(prefix: str) -> None:
    """Keys of the pipeline's other models are not ours."""
    others: Shapes = (
        {"model.diffusion_model.input_blocks.0.0.weight": (1,), "cond_stage_model.x": (1,)} if prefix else {}
    )
    found = plan(LDM, native(), {**stored(prefix=prefix), **others})
    assert found.prefix == prefix
    assert found.fits


def test_prefix_is_where_the_models_keys_are() -> None:
    """Not where most keys are: a discriminator may be larger than the model."""
    keys = {**stored(OFFICIAL, "", shapes(on_meta(Oobleck, OOBLECK8))), "autoencoder.step": (1,)}
    found = plan(OFFICIAL, shapes(on_meta(Oobleck, OOBLECK8)), keys)
    assert found.prefix == ""
    assert found.unexpected == ("autoencoder.step",)
    many = {f"autoencoder.noise.{i}": (1,) for i in range(1000)}
    inside = stored(OFFICIAL, "pretransform.model.", shapes(on_meta(Oobleck, OOBLECK8)))
    assert plan(OFFICIAL, shapes(on_meta(Oobleck, OOBLECK8)), {**inside, **many}).fits


def test_a_foreign_file_fits_nothing() -> None:
    found = plan(LDM, native(), {"lora.down.weight": (4, 8)})
    assert not found.fits
    assert found.unexpected == ("lora.down.weight",)
    assert len(found.missing) == len(stored())


def test_written_under_the_first_prefix() -> None:
    keys = {key for step in plan(LDM, native()).steps for key in step.stored}
    assert all(key.startswith("first_stage_model.") for key in keys)
    assert plan(LDM, native(), stored(prefix="first_stage_model.")).prefix == "first_stage_model."


def test_one_weight_under_two_names_is_refused() -> None:
    """Neither the old nor the new spelling is dropped in silence."""
    keys = stored(DIFFUSERS)
    old = "encoder.mid_block.attentions.0.query.weight"
    found = plan(DIFFUSERS, native(), {**keys, old: keys["encoder.mid_block.attentions.0.to_q.weight"]})
    assert not found.fits
    assert len(found.unexpected) == 1
    assert found.unexpected[0].endswith(" (under two names)")


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_bit_equal(name: str) -> None:
    """In every layout: native to stored tensors and back, and stored to native and back."""
    model, arch = MODELS[name]
    keys = shapes(on_meta(model, arch))
    weights = {key: normal(*shape, seed=i) for i, (key, shape) in enumerate(keys.items())}
    layouts = [layout for layout in weight_map(model).LAYOUTS if not plan(layout, keys).missing]
    assert len(layouts) >= 2 or name == "magvit", "Diffusers' and an official one"
    for layout in layouts:
        written = dict(plan(layout, keys).write(weights.__getitem__))
        found = plan(layout, keys, {key: tuple(t.shape) for key, t in written.items()})
        assert_equal(dict(found.require(layout.name, "").convert(written.__getitem__)), weights)
        assert_equal(dict(found.write(converted(found, written).__getitem__)), written)


def converted(found: Plan, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(found.convert(tensors.__getitem__))


def step_of(found: Plan, key: str) -> Step:
    return next(step for step in found.steps if step.native == key)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_unfused_weights_are_views() -> None:
    """Reading copies nothing but what is fused, so a memory-mapped file stays on disk until it is moved."""
    weights = {key: torch.zeros(shape) for key, shape in stored().items()}
    found = plan(LDM, native(), stored())
    copied = [step.native for step in found.steps if step.read(weights.__getitem__).data_ptr() not in pointers(weights)]
    assert {key.rsplit(".", 2)[1] for key in copied} == {"qkv"}


def pointers(weights: dict[str, Tensor]) -> set[int]:
    return {t.data_ptr() for t in weights.values()}


# Blocks, transposed and unlike parts: (rule or rules, native shapes, stored shapes).

ROWS = {
    "a block each": ((Rule("{n}.w", "qkv#{n}/2"),), {"0.w": (2, 3), "1.w": (2, 3)}, {"qkv": (4, 3)}),
    "in another order": (
        (Rule("qkv", "kqv#{part}", fuse=Fuse(("1/3", "0/3", "2/3"))),),
        {"qkv": (6, 3)},
        {"kqv": (6, 3)},
    ),
    "behind a unit axis": (
        (Rule("{n}.b", "bias#{n}/2", Units(lead=1, trail=1)),),
        {"0.b": (3,), "1.b": (3,)},
        {"bias": (1, 6, 1)},
    ),
    "transposed": (
        (Rule("{n}.w", "w#{n}/2", Units(transposed=True)),),
        {"0.w": (2, 3), "1.w": (2, 3)},
        {"w": (3, 4)},
    ),
    "transposed between unit axes": (
        (Rule("w", "w", Units(lead=1, trail=1, transposed=True)),),
        {"w": (2, 3)},
        {"w": (1, 3, 2, 1)},
    ),
    "without unit axes": (
        (Rule("w", "w", Units(trail=-2)), Rule("g", "g", Units(lead=-1))),
        {"w": (2, 3, 1, 1), "g": (1, 3)},
        {"w": (2, 3), "g": (3,)},
    ),
    "parts that lie in different ways": (
        (
            Rule(
                "qkv",
                "to_{part}",
                fuse=Fuse(("q", "k", "v"), (Units(trail=2), Units(transposed=True), Units())),
            ),
        ),
        {"qkv": (6, 3)},
        {"to_q": (2, 3, 1, 1), "to_k": (3, 2), "to_v": (2, 3)},
    ),
    "a number": ((Rule("step", "steps"),), {"step": ()}, {"steps": ()}),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_kind_of_change_runs_both_ways(name: str) -> None:
    rules, native_shapes, stored_shapes = ROWS[name]
    found = plan(Layout("x", rules), native_shapes, stored_shapes).require("", "")
    weights = {k: normal(*shape, seed=i) for i, (k, shape) in enumerate(stored_shapes.items())}
    native_weights = dict(found.convert(weights.__getitem__))
    assert {k: tuple(t.shape) for k, t in native_weights.items()} == native_shapes
    assert_equal(dict(found.write(native_weights.__getitem__)), weights)


def test_what_a_block_holds() -> None:
    """Rows of the stored matrix; of a transposed one, columns."""
    whole = torch.arange(12.0).view(4, 3)
    layout = Layout("x", (Rule("q", "qkv#1/2"), Rule("k", "qkv#0/2")))
    read = converted(plan(layout, {"q": (2, 3), "k": (2, 3)}, {"qkv": (4, 3)}), {"qkv": whole})
    assert_equal(read, {"q": whole[2:], "k": whole[:2]})
    turned = Layout("x", (Rule("q", "w#1/2", Units(transposed=True)), Rule("k", "w#0/2", Units(transposed=True))))
    read = converted(plan(turned, {"q": (2, 3), "k": (2, 3)}, {"w": (3, 4)}), {"w": whole.T})
    assert_equal(read, {"q": whole[2:], "k": whole[:2]})


def test_write_waits_for_the_last_block_and_keeps_nothing_else() -> None:
    layout = Layout("x", (Rule("{n}.w", "qkv#{n}/2"), Rule("a", "a")))
    found = plan(layout, {"0.w": (1,), "a": (1,), "1.w": (1,)})
    asked: list[str] = []

    def native_weight(key: str) -> Tensor:
        asked.append(key)
        return torch.ones(1)

    assert [(key, len(asked)) for key, _ in found.write(native_weight)] == [("a", 2), ("qkv", 3)]


def test_write_refuses_to_lose_blocks() -> None:
    found = plan(Layout("half", (Rule("q", "qkv#0/3"),)), {"q": (2,)})
    with pytest.raises(KeyMismatchError, match="the map fills parts of stored tensors only") as refused:
        dict(found.write(lambda key: torch.zeros(2)))
    assert (refused.value.where, refused.value.found) == ("layout 'half'", "qkv: 1 of its blocks")


def test_blocks_of_the_wrong_size_are_named() -> None:
    layout = Layout("x", (Rule("{n}.w", "qkv#{n}/3"),))
    found = plan(layout, {f"{n}.w": (2, 3) for n in range(3)}, {"qkv": (4, 3)})
    assert found.misshapen == ("qkv [4, 3] instead of [6, 3]",) * 3
    missing = plan(layout, {"0.w": (2, 3)}, {"other": (6, 3)})
    assert (missing.missing, missing.unexpected) == (("qkv",), ("other",))
