"""Diffusers' pipelines give with a native VAE what they give with their own."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import pytest
import torch
from torch import Tensor

from tests.interop.pipelines import CASES, Case, original
from tests.layers.laws import normal
from tests.narrow import both
from vaeport.errors import BlockedError
from vaeport.interop.diffusers import as_diffusers, load
from vaeport.runtime.parallel import ParallelTiledVAE

CLOSE = 2e-5
"""of media in 0..1, both sides in float32"""
ABSENT: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))


def ours(name: str, **options: Any) -> Any:
    """A native VAE of `tests.narrow`, which tests may change."""
    return as_diffusers(deepcopy(both(name, torch.float32)[0]), **options)


def run(case: Case, vae: Any, **changes: Any) -> Tensor:
    return case.run(case.build(vae), **changes)


def require_equal(media: Tensor, expected: Tensor, most: float = CLOSE) -> None:
    error, spread = float((media - expected).abs().max()), float(expected.std())
    print(f"{list(media.shape)}: error {error:.1e}, spread {spread:.2f}")
    assert media.shape == expected.shape
    assert media.dtype == expected.dtype
    assert spread > 0.02, "a flat picture says nothing"
    assert error < most


@pytest.mark.parametrize("name", CASES)
def test_pipelines_agree(name: str) -> None:
    case = CASES[name]
    require_equal(run(case, ours(case.vae)), run(case, original(case.vae)))


def test_another_vae_is_seen() -> None:
    """The comparison fails where one weight differs a little."""
    case, vae = CASES["sd-image"], ours("kl")
    expected = run(case, original("kl"))
    with torch.no_grad():
        vae.encoder.conv_in.weight[0] *= 1.01
    assert float((run(case, vae) - expected).abs().max()) > 5 * CLOSE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline with Diffusers' own VAE."""
    case = CASES["sd"]
    case.build(original("kl")).save_pretrained(tmp_path / "original")
    return tmp_path / "original"


def test_from_pretrained(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case, kind = CASES["sd"], diffusers.StableDiffusionPipeline
    expected = case.run(kind.from_pretrained(folder, **ABSENT))
    logging.getLogger("diffusers").addHandler(caplog.handler)
    caplog.clear()
    pipe = kind.from_pretrained(folder, vae=load(folder), **ABSENT)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not [r.message for r in caplog.records if "vae" in r.message.lower()], "Diffusers warns of its type"
    require_equal(case.run(pipe), expected)
    assert pipe.vae.config._name_or_path == str(folder)

    pipe.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    again = kind.from_pretrained(tmp_path / "saved", **ABSENT)
    assert type(again.vae) is diffusers.AutoencoderKL
    require_equal(case.run(again), expected)


def test_assignment() -> None:
    case = CASES["sd"]
    pipe = case.build(original("kl"))
    expected = case.run(pipe)
    pipe.vae = ours("kl")
    assert pipe.config["vae"] == ("diffusers", "AutoencoderKL")
    require_equal(case.run(pipe), expected)
    pipe.register_modules(vae=ours("kl"))
    image = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    require_equal(CASES["sd-image"].run(image), run(CASES["sd-image"], original("kl")))


def test_types_of_the_whole() -> None:
    """`pipe.to(dtype)` there and back; the type is that of the weights."""
    case, pipe, latents = CASES["sd"], CASES["sd"].build(ours("kl")), normal(1, 4, 4, 6)
    pipe.unet = deepcopy(pipe.unet)
    expected = case.run(pipe, latents=latents.float())
    embeds = {name: case.call[name].double() for name in ("prompt_embeds", "negative_prompt_embeds")}
    pipe.to(torch.float64)
    assert pipe.vae.dtype == pipe.vae.native.dtype == torch.float64
    assert pipe.vae.device == pipe.device == torch.device("cpu")
    require_equal(case.run(pipe, latents=latents, **embeds).float(), expected)
    pipe.to("cpu", torch.float32)
    assert torch.equal(case.run(pipe, latents=latents.float()), expected)


def test_upcast() -> None:
    """SDXL converts a VAE in float16 to float32 to decode, and asks one of its layers for its type."""
    case, vae = CASES["sdxl"], ours("kl").to(torch.float16)
    assert vae.config.force_upcast
    media = run(case, vae)
    require_equal(media, run(case, deepcopy(original("kl")).to(torch.float16)))
    assert vae.dtype == torch.float16


def test_offload() -> None:
    """`enable_model_cpu_offload` moves the VAE when `encode` and `decode` are called."""
    case, vae = CASES["sd-image"], ours("kl")
    expected, calls = run(case, vae), []

    class Counting(accelerate.hooks.ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(module)
            return args, kwargs

    accelerate.hooks.add_hook_to_module(vae, Counting())
    assert torch.equal(run(case, vae), expected)
    assert len(calls) == 2
    assert all(call is vae for call in calls)
    accelerate.hooks.remove_hook_from_module(vae)
    pipe = case.build(vae)
    pipe.unet = deepcopy(pipe.unet)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(case.run(pipe), expected)
    pipe.remove_all_hooks()
    accelerate.cpu_offload(vae, execution_device=torch.device("cpu"))
    with pytest.raises(BlockedError, match="enable_model_cpu_offload"):
        vae.decode(torch.zeros(1, 4, 4, 4))


@pytest.mark.parametrize(
    ("name", "shape", "budget", "kind"),
    [("sd", (1, 4, 4, 6), "400KiB", "bands"), ("wan", (1, 4, 2, 4, 6), "3MiB", "stream")],
)
def test_plans_in_a_pipeline(name: str, shape: tuple[int, ...], budget: str, kind: str) -> None:
    """Within a budget too small for the whole, the same media."""
    case = CASES[name]
    plans = ParallelTiledVAE(deepcopy(both(case.vae, torch.float32)[0]), budget=budget)
    assert plans.plan(shape).kind == kind
    require_equal(run(case, as_diffusers(plans)), run(case, original(case.vae)))


def test_slices_and_tiles_in_a_pipeline() -> None:
    case, vae = CASES["sd"], ours("kl")
    expected = run(case, original("kl"), num_images_per_prompt=2)
    vae.enable_slicing()
    vae.enable_tiling()
    require_equal(run(case, vae, num_images_per_prompt=2), expected)
