"""Maps of AutoencoderKL against Diffusers' and the official classes' own keys."""

from __future__ import annotations

import re

import pytest

from tests.narrow import KL
from tests.weights.laws import assert_bijective, diffusers_shapes, official_shapes, planned
from vaeport.mapping import Layout
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.weights.autoencoder_kl import DIFFUSERS, LAYOUTS, LDM

VARIANTS = AutoencoderKL.variants


@pytest.mark.parametrize("arch", [*VARIANTS.values(), KL, KL.replace(mid_block_add_attention=False)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, arch: AutoencoderKLArchConfig) -> None:
    assert_bijective(layout, AutoencoderKL, arch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_keys(variant: str) -> None:
    found = planned(DIFFUSERS, AutoencoderKL, VARIANTS[variant], diffusers_shapes(VARIANTS[variant]))
    assert found.dropped == {}


@pytest.mark.parametrize(
    ("golden", "variant", "prefix"), [("ldm_sd1", "sd1", "first_stage_model."), ("flux1", "flux1", "")]
)
def test_official_keys(golden: str, variant: str, prefix: str) -> None:
    found = planned(LDM, AutoencoderKL, VARIANTS[variant], official_shapes(golden))
    assert found.prefix == prefix


def test_old_attention_names() -> None:
    """SD 1.5's files are older than Diffusers' present names."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(key: str) -> str:
        for new, before in names.items():
            key = re.sub(rf"attentions\.0\.{new}\.", f"attentions.0.{before}.", key)
        return key

    stored = {old(key): shape for key, shape in diffusers_shapes(VARIANTS["sd1"]).items()}
    assert sum("query" in key for key in stored) == 4
    found = planned(DIFFUSERS, AutoencoderKL, VARIANTS["sd1"], stored)
    step = next(s for s in found.steps if s.native == "encoder.middle.attention.main.attention.qkv.weight")
    assert step.stored == tuple(f"encoder.mid_block.attentions.0.{n}.weight" for n in ("query", "key", "value"))
    proj = next(s for s in found.steps if s.native == "encoder.middle.attention.main.attention.proj.bias")
    assert proj.stored == ("encoder.mid_block.attentions.0.proj_attn.bias",)


def test_levels_of_the_original_decoder_count_down() -> None:
    found = planned(LDM, AutoencoderKL, VARIANTS["flux1"], official_shapes("flux1"))
    stored = {step.native: step.stored for step in found.steps}
    assert stored["decoder.levels.0.blocks.2.main.conv1.weight"] == ("decoder.up.3.block.2.conv1.weight",)
    assert stored["decoder.levels.3.blocks.0.shortcut.weight"] == ("decoder.up.0.block.0.nin_shortcut.weight",)
    assert stored["decoder.middle.attention.main.attention.qkv.bias"] == tuple(
        f"decoder.mid.attn_1.{part}.bias" for part in "qkv"
    )
    assert stored["encoder.levels.0.resample.weight"] == ("encoder.down.0.downsample.conv.weight",)


@pytest.mark.parametrize(
    ("key", "variant"),
    [
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", "sd1"),
        ("cond_stage_model.model.ln_final.weight", "sd2"),
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.weight", "sdxl"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "sd3"),
        ("decoder.conv_in.weight", "flux1"),
        ("first_stage_model.decoder.conv_in.weight", None),
        ("vae.decoder.conv_in.weight", None),
        ("model.diffusion_model.input_blocks.0.0.weight", None),
    ],
)
def test_marks_of_variants(key: str, variant: str | None) -> None:
    assert [name for name, pattern in LDM.variants.items() if re.fullmatch(pattern, key)] == [variant] * (
        variant is not None
    )
    assert set(LDM.variants) == set(VARIANTS)
