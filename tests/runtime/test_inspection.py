"""What an unlabelled checkpoint is, for every layout of every model: as published, prefixed, in another type, by
halves, and among other models' keys.

What is right is worked out from the maps forwards: the keys and shapes that every published configuration is written
with. The files are sparse: headers of full width, and no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import vaeport
from tests.narrow import MODELS
from tests.runtime.made import CODES, sparse, write_config
from vaeport.checkpoint import open_checkpoint
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, KeyMismatchError, VaeportError
from vaeport.mapping import Layout, plan
from vaeport.registry import ModelRegistry, Registration
from vaeport.runtime.identify import identify
from vaeport.runtime.inspection import Identification, inspect
from vaeport.runtime.reading import HALVES, Reading, native_shapes

Shapes = dict[str, tuple[int, ...]]
OTHERS: Shapes = {
    **{f"transformer.blocks.{i}.attn.to_q.weight": (8, 8) for i in range(30)},
    **{f"text_encoder.encoder.layers.{i}.mlp.fc1.weight": (16, 8) for i in range(12)},
    "unet.down_blocks.0.resnets.0.conv1.weight": (8, 4, 3, 3),
    "unet.conv_in.weight": (8, 4, 3, 3),
    "audio_vae.decoder.conv_in.conv.weight": (8, 4, 3, 3),
    "logit_scale": (),
}


class Written(NamedTuple):
    """A configuration as one layout writes it, without a prefix, and the half that each key belongs to."""

    registration: Registration
    variant: str
    arch: VAEArchConfig
    layout: Layout
    shapes: Shapes
    half: dict[str, str]

    def only(self, half: str | None) -> Shapes:
        """Keys and shapes without the other half."""
        other = {"encoder": "decoder", "decoder": "encoder"}.get(half or "")
        return {key: shape for key, shape in self.shapes.items() if self.half[key] != other}


def written(registration: Registration, variant: str, arch: VAEArchConfig, layout: Layout) -> Written | None:
    """None where the layout gives one key to two weights: it is not that variant's."""
    native = native_shapes(registration.model, arch)
    found = plan(layout, native)
    blocks = [(block, step) for step in found.steps for block in step.blocks]
    if found.missing or len({block for block, _ in blocks}) != len(blocks):
        return None
    shapes = {block.key.removeprefix(found.prefix): step.stored_shape(block) for block, step in blocks}
    half = {block.key.removeprefix(found.prefix): step.native.partition(".")[0] for block, step in blocks}
    return Written(registration, variant, arch, layout, shapes, half)


@cache
def published() -> tuple[Written, ...]:
    every = (
        written(one, variant, arch, layout)
        for one in ModelRegistry.registrations()
        for variant, arch in one.model.variants.items()
        for layout in one.layouts
    )
    return tuple(one for one in every if one is not None)


@cache
def narrow() -> tuple[Written, ...]:
    every = (
        written(ModelRegistry.find_class(model), name, arch, layout)
        for name, (model, arch) in MODELS.items()
        for layout in ModelRegistry.find_class(model).layouts
    )
    return tuple(one for one in every if one is not None)


def name_of(one: Written) -> str:
    return f"{one.registration.name}-{one.variant}-{one.layout.name}"


def distinct() -> list[Written]:
    """One of those that are written alike."""
    found: dict[str, Written] = {}
    for one in published():
        found.setdefault(repr(sorted(one.shapes.items())), one)
    return list(found.values())


def looked(path: Path, entries: Mapping[str, tuple[int, ...]], **options: Any) -> Identification:
    with open_checkpoint(sparse(path / "some.safetensors", entries, **options)) as checkpoint:
        return inspect(checkpoint)


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + key: shape for key, shape in shapes.items()}


def alike(shapes: Shapes, half: str | None) -> dict[str, set[str]]:
    """All published configurations that are written with these keys and shapes: variants by model."""
    found: dict[str, set[str]] = {}
    for one in published():
        if one.only(half) == shapes:
            found.setdefault(one.registration.name, set()).add(one.variant)
    return found


def files(one: Written) -> Iterator[tuple[str, str, str | None, Shapes]]:
    """What is done to it, the prefix, the half that is left, and the keys."""
    known = one.layout.prefixes[0] or "vae."
    for prefix in dict.fromkeys((*one.layout.prefixes, "", "vae.", "my.own_2.vae.")):
        yield f"behind `{prefix}`", prefix, None, prefixed(prefix, one.shapes)
    for half in HALVES:
        yield f"the {half} alone", "", half, one.only(half)
    yield "in a pipeline", known, None, {**OTHERS, **prefixed(known, one.shapes)}
    yield "half in a pipeline", "other.", "decoder", {**OTHERS, **prefixed("other.", one.only("decoder"))}


@pytest.mark.parametrize("one", distinct(), ids=name_of)
def test_every_layout(one: Written, tmp_path: Path) -> None:
    for what, prefix, half, entries in files(one):
        found = looked(tmp_path, entries)
        wanted = alike(one.only(half), half)
        assert found.verdict == ("known" if len(wanted) == 1 else "ambiguous"), what
        assert {reading.registration.name for reading in found.readings} == set(wanted), what
        for reading in found.readings:
            assert_right(reading, prefix, half, wanted[reading.registration.name], what)
            assert reading.used == set(prefixed(prefix, one.only(half))), what
        mine = next(reading for reading in found.readings if reading.registration.name == one.registration.name)
        assert_shown(mine, one.arch, entries)
        others = OTHERS if len(entries) > len(one.only(half)) else {}
        assert {name: n for name, (n, _) in found.groups.items()} == groups(others), what


def assert_right(reading: Reading, prefix: str, half: str | None, variants: set[str], what: str) -> None:
    assert reading.plan.fits
    assert reading.plan.prefix == prefix, what
    assert set(reading.present) == ({half} if half else set(HALVES)), what
    # keys that tell published variants apart, such as those of a bare file, may rule some out
    marked = {v for v in variants if v in reading.plan.layout.variants}
    assert set(reading.variants) == variants or set(reading.variants) <= marked, what
    assert reading.variants, what


def assert_shown(reading: Reading, arch: VAEArchConfig, entries: Shapes) -> None:
    """Every value that shapes show is that of the configuration, and the keys that show it are there, or are not."""
    assert reading.shown
    for name, found in reading.shown.items():
        assert found.value == getattr(arch, name), name
        assert found.keys, name
        for key in found.keys:
            assert (key.removeprefix("no ") in entries) == (not key.startswith("no ")), (name, key)


def groups(entries: Shapes) -> dict[str, int]:
    names = [key.partition(".")[0] for key in entries]
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize("one", narrow(), ids=name_of)
def test_other_widths(one: Written, tmp_path: Path) -> None:
    """Of no published variant: the constants are those that the shapes show, and a load is refused."""
    for half in (*HALVES, None):
        entries = prefixed("vae.", one.only(half))
        found = looked(tmp_path, entries)
        mine = [reading for reading in found.readings if reading.registration.name == one.registration.name]
        assert len(mine) == 1, half
        assert found.verdict in ("known", "ambiguous")
        assert (mine[0].plan.fits, mine[0].variants, mine[0].plan.prefix) == (True, (), "vae.")
        assert_shown(mine[0], one.arch, entries)
    with pytest.raises(ConfigError, match=r"no published configuration|several architectures"):
        vaeport.load(tmp_path / "some.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_types_do_not_matter(dtype: torch.dtype, tmp_path: Path) -> None:
    assert dtype in CODES
    for one in distinct()[:: len(distinct()) // 4]:
        found = looked(tmp_path, one.shapes, dtypes=dict.fromkeys(one.shapes, dtype))
        assert one.registration.name in {reading.registration.name for reading in found.readings}
        assert found.to_json()["readings"][0]["dtypes"] == [str(dtype).removeprefix("torch.")]
        assert f"stored as {str(dtype).removeprefix('torch.')}" in "\n".join(found.lines())


def other_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, tuple):
        return [value[::-1], tuple(v for item in value for v in other_values(item)[:1])]
    return [2 * value, value + 1, value // 2] if isinstance(value, int) and value else []


@pytest.mark.parametrize("registration", ModelRegistry.registrations(), ids=lambda one: one.name)
def test_what_is_not_shown_changes_no_shape(registration: Registration, tmp_path: Path) -> None:
    """Every field that shapes determine is read: another value of any of the rest leaves all shapes as they are."""
    for one in (one for one in distinct() if one.registration.name == registration.name):
        reading = next(r for r in looked(tmp_path, one.shapes).readings if r.registration.name == registration.name)
        hidden = [f.name for f in fields(one.arch) if f.name not in {*reading.shown, "extra"}]
        if "in_channels" in reading.shown:
            hidden = [name for name in hidden if name != "patch_size"]  # shapes show the product of both
        for name in hidden:
            for value in other_values(getattr(one.arch, name)):
                try:
                    changed = written(registration, "", one.arch.replace(**{name: value}), one.layout)
                except (VaeportError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError):
                    continue
                where = f"{one.variant} {one.layout.name}: {name} {value}"
                assert changed is None or changed.shapes == one.shapes, f"{where} changes shapes, so they show it"


def test_a_missing_key_and_one_too_many(tmp_path: Path) -> None:
    for one in distinct()[::3]:
        gone = sorted(one.shapes)[len(one.shapes) // 3]
        entries = {key: shape for key, shape in one.shapes.items() if key != gone}
        found = looked(tmp_path, {**prefixed("x.", entries), "x.alien.weight": (3,)})
        best = next(r for r in found.readings if r.registration.name == one.registration.name)
        assert found.verdict == "unknown"
        assert (best.plan.missing, best.plan.unexpected) == ((f"x.{gone}",), ("x.alien.weight",)), name_of(one)
        assert best.misfits == found.readings[0].misfits == 2
        assert one.variant in best.variants


def test_names_that_nobody_has(tmp_path: Path) -> None:
    found = looked(tmp_path, OTHERS)
    assert (found.verdict, found.readings) == ("unknown", ())
    assert {name: n for name, (n, _) in found.groups.items()} == groups(OTHERS)
    assert found.lines()[0] == "identified  unknown: no registered architecture accounts for these keys"


def test_nearest_relatives(tmp_path: Path) -> None:
    """A VAE that is not here: the names say which one it is most like, and the shapes that it is not that."""
    one = next(one for one in published() if one.variant == "flux1" and one.layout.name == "diffusers")
    entries = {key.replace(".conv1.", ".first."): shape for key, shape in one.shapes.items()}
    found = looked(tmp_path, entries)
    assert found.verdict == "unknown"
    names = [name for name, _ in found.outlines] or [reading.registration.name for reading in found.readings]
    assert "autoencoder_kl" in names
    assert any(line.startswith("nearest") and "autoencoder_kl" in line for line in found.lines())


def by_name(variant: str, layout: str) -> Written:
    return next(one for one in published() if (one.variant, one.layout.name) == (variant, layout))


def component(folder: Path, one: Written, **config: Any) -> Path:
    sparse(folder / "diffusion_pytorch_model.safetensors", one.shapes)
    return write_config(folder, {**one.arch.to_published(), **config})


def test_a_config_is_believed_if_it_fits(tmp_path: Path) -> None:
    component(tmp_path, by_name("sdxl", "diffusers"), norm_num_groups=16)
    with open_checkpoint(tmp_path) as checkpoint:
        found = inspect(checkpoint)
    assert (found.verdict, found.readings[0].variants) == ("known", ())
    assert found.readings[0].undetermined["scaling_factor"] == 0.13025
    assert found.to_json()["readings"][0]["undetermined"]["norm_num_groups"]["from"] == "values of config.json"
    component(tmp_path, by_name("sdxl", "diffusers"))
    with open_checkpoint(tmp_path) as checkpoint:
        assert inspect(checkpoint).readings[0].variants == ("sdxl",)


@pytest.mark.parametrize(
    ("config", "said", "shown"),
    [
        ({"latent_channels": 8}, "latent_channels 8", "latent_channels 16 (encoder.conv_out.weight)"),
        ({"layers_per_block": 3}, "layers_per_block 3", "layers_per_block 2 (encoder.down_blocks.0."),
    ],
)
def test_a_config_that_contradicts_the_weights(config: dict[str, Any], said: str, shown: str, tmp_path: Path) -> None:
    component(tmp_path, by_name("flux1", "diffusers"), **config)
    with open_checkpoint(tmp_path) as checkpoint:
        found = inspect(checkpoint)
    assert found.verdict == "contradiction"
    assert [reading.plan.fits for reading in found.readings] == [False, True]
    assert f"config.json says {said}; the weights say {shown}" in "\n".join(found.lines())
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(tmp_path)
    assert f"as config.json says: {said}" in str(refused.value.expected)
    assert f"the weights alone say: {shown}" in str(refused.value.found)


def test_a_config_of_another_model(tmp_path: Path) -> None:
    component(tmp_path, by_name("wan2.1", "diffusers"))
    write_config(tmp_path, by_name("flux1", "diffusers").arch.to_published())
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(tmp_path)
    assert "as config.json says: AutoencoderKL" in str(refused.value.expected)
    assert "the weights alone say: wan wan2.1, layout 'diffusers'" in str(refused.value.found)


@pytest.mark.parametrize("inside", [lambda config: config, lambda config: {"vae": config, "transformer": {"dim": 3}}])
def test_a_config_in_the_metadata(inside: Any, tmp_path: Path) -> None:
    import json

    one = by_name("sdxl", "ldm")
    config = inside({**one.arch.to_published(), "scaling_factor": 0.5})
    file = sparse(tmp_path / "a.safetensors", prefixed("vae.", one.shapes), None, {"config": json.dumps(config)})
    with open_checkpoint(file) as checkpoint:
        found = inspect(checkpoint)
        assert identify(checkpoint).arch.scaling_factor == 0.5
        assert identify(checkpoint, model_variant="sd1").arch.scaling_factor == 0.18215
    assert (found.verdict, found.readings[0].undetermined["scaling_factor"]) == ("known", 0.5)
    assert "so says metadata" in found.lines()[0]
    wrong = by_name("flux1", "ldm")
    sparse(file, prefixed("vae.", wrong.shapes), None, {"config": json.dumps(config)})
    with pytest.raises(KeyMismatchError, match="as metadata says: latent_channels 4"):
        vaeport.load(file)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"vae": 3}', '{"_class_name": "Nobody"}', '{"vae": {"_class_name": 5}}']
)
def test_metadata_that_says_nothing(text: str, tmp_path: Path) -> None:
    one = by_name("wan2.1", "wan-official")
    found = looked(tmp_path, one.shapes, metadata={"config": text})
    assert (found.verdict, found.label, found.readings[0].variants) == ("known", None, ("wan2.1",))


def test_two_architectures_of_the_same_weights(tmp_path: Path) -> None:
    """HunyuanVideo and GameCraft differ in options only."""
    one = by_name("hunyuan_video", "diffusers")
    found = looked(tmp_path, one.shapes)
    assert found.verdict == "ambiguous"
    file = tmp_path / "some.safetensors"
    with pytest.raises(ConfigError) as refused:
        vaeport.load(file)
    assert "several architectures" in refused.value.what
    for name in ("hunyuan_video", "gamecraft"):
        assert f"{name} {name} (layout diffusers" in str(refused.value.found)
    assert "mid_block_causal_attn" in str(refused.value.found)
    assert 'model="gamecraft" or model="hunyuan_video"' in str(refused.value.fix)
    with open_checkpoint(file) as checkpoint:
        for name in ("hunyuan_video", "gamecraft"):
            assert identify(checkpoint, model=name).registration.name == name
            assert identify(checkpoint, model_variant=name).registration.name == name


def test_two_vaes_in_one_file(tmp_path: Path) -> None:
    one = by_name("wan2.1", "wan-official")
    found = looked(tmp_path, {**prefixed("a.", one.shapes), **prefixed("b.", one.shapes)})
    assert found.verdict == "ambiguous"
    assert {reading.plan.prefix for reading in found.readings} == {"a.", "b."}
    with pytest.raises(ConfigError, match="the file holds several VAEs"):
        vaeport.load(tmp_path / "some.safetensors")


def test_what_is_left_over_of_a_half(tmp_path: Path) -> None:
    """`encoder.*` was taken out and `quant_conv` stayed: the decoder is whole, and the encoder is not there."""
    one = by_name("sd1", "diffusers")
    entries = {key: shape for key, shape in one.shapes.items() if not key.startswith("encoder.")}
    found = looked(tmp_path, entries)
    assert found.verdict == "known"
    assert (found.readings[0].present, found.readings[0].halves["encoder"][0]) == (("decoder",), 2)
    with open_checkpoint(tmp_path / "some.safetensors") as checkpoint:
        assert identify(checkpoint, model_variant="sd1", halves=("decoder",)).variant == "sd1"
        with pytest.raises(KeyMismatchError, match=r"missing: encoder\.conv_in"):
            identify(checkpoint, model_variant="sd1")


def test_hostile_headers(tmp_path: Path) -> None:
    """Shapes that contradict each other, sizes of nothing, a million levels: unknown, soon, and no crash."""
    one = by_name("flux1", "diffusers")
    for shape in ((), (0,), (0, 0, 0, 0), (1,), (7, 5, 3, 3)):
        assert looked(tmp_path, dict.fromkeys(one.shapes, shape)).verdict == "unknown"
    levels = {f"encoder.down_blocks.{i}.resnets.{i}.conv1.weight": (1, 1) for i in range(5000)}
    assert looked(tmp_path, {**one.shapes, **levels}).verdict == "unknown"
    assert looked(tmp_path, {"." * 300: (1,), ".".join("a" * 5000): (1,)}).verdict == "unknown"
