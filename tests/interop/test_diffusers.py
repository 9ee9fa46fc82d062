"""`as_diffusers`: an object of Diffusers' class that computes with a native VAE."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import vaeport
from tests.interop.pipelines import original
from tests.narrow import IN_DIFFUSERS, LTX5, MODELS, TIMESTEP, both, latent, media, saved
from vaeport.errors import ConfigError, InputError
from vaeport.interop.diffusers import as_diffusers, load
from vaeport.runtime.parallel import ParallelTiledVAE
from vaeport.runtime.tiling import tiled

RATIOS = ("spatial_compression_ratio", "temporal_compression_ratio")


def ours(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """Tests may change it, but not its weights."""
    return as_diffusers(both(name, dtype)[0], **options)


def own(name: str, **options: Any) -> Any:
    """Tests may change all of it."""
    return as_diffusers(deepcopy(both(name, torch.float64)[0]), **options)


def told(vae: Any, z: Tensor, timestep: float = TIMESTEP) -> dict[str, Any]:
    """The timestep, for decoders that know one."""
    timed = getattr(vae.config, "timestep_conditioning", False)
    return {"temb": torch.full((len(z),), timestep, dtype=z.dtype)} if timed else {}


def decoded(vae: Any, z: Tensor, **options: Any) -> Tensor:
    """With noise from one seed."""
    torch.manual_seed(3)
    found: Tensor = vae.decode(z, **told(vae, z), **options)[0]
    return found


def require_close(found: Tensor, expected: Tensor, most: float = 2e-5) -> None:
    """Diffusers' Wan and LTX-Video convert to float32 and back within float64."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert float(expected.std()) > 0.01
    assert float((found - expected).abs().max()) < most * float(expected.square().mean().sqrt())


@pytest.mark.parametrize("name", IN_DIFFUSERS)
def test_is_what_pipelines_read(name: str) -> None:
    """Class, configuration, plain attributes, statistics."""
    vae, theirs = ours(name), original(name, torch.float64)
    assert isinstance(vae, type(theirs))
    assert (type(vae).__module__, type(vae).__name__) == (type(theirs).__module__, type(theirs).__name__)
    assert vae.config["_class_name"] == type(theirs).__name__
    stated = {key: value for key, value in theirs.config.items() if key not in (*RATIOS, "_use_default_values")}
    assert {key: vae.config[key] for key in stated} == stated
    other = ("_", "training", "quant_conv", "post_quant_conv")
    plain = {key: value for key, value in vars(theirs).items() if not key.startswith(other)}
    assert {key: getattr(vae, key) for key in plain} == plain
    assert {"use_slicing", "use_tiling"} <= plain.keys()
    for statistic in ("latents_mean", "latents_std"):
        if statistic in dict(theirs.named_buffers()):
            assert torch.equal(getattr(vae, statistic), getattr(theirs, statistic))
    for layer in ("quant_conv", "post_quant_conv"):
        if (conv := getattr(theirs, layer, None)) is not None:
            assert next(iter(getattr(vae, layer).parameters())).shape == next(iter(conv.parameters())).shape
    assert (vae.dtype, vae.device) == (theirs.dtype, theirs.device)
    assert list(vae.state_dict()) == list(vae.native.state_dict())
    assert sum(p.numel() for p in vae.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", IN_DIFFUSERS)
def test_gives_what_theirs_gives(name: str) -> None:
    vae, theirs = ours(name), original(name, torch.float64)
    x, z = media(name), latent(name)
    found, expected = vae.encode(x).latent_dist, theirs.encode(x).latent_dist
    assert type(found) is type(expected)
    require_close(found.mode(), expected.mode())
    require_close(found.mean, expected.mean)
    seeds = [[torch.Generator().manual_seed(i) for i in range(len(x))] for _ in range(2)]
    require_close(found.sample(seeds[0]), expected.sample(seeds[1]))
    require_close(vae.encode(x, return_dict=False)[0].parameters, expected.parameters)
    require_close(decoded(vae, z), decoded(theirs, z))
    require_close(decoded(vae, z, return_dict=False), decoded(theirs, z))
    torch.manual_seed(3)
    require_close(vae(x[:1], **told(vae, z[:1])).sample, decoded(theirs, theirs.encode(x[:1]).latent_dist.mode()))


def test_positions_of_arguments() -> None:
    """As Diffusers' class has them: LTX-Video's pipelines give the timestep second."""
    z, vae = latent("ltx5"), ours("ltx5")
    at = torch.full((2,), 0.3, dtype=z.dtype)
    (sample,) = vae.decode(z, at, return_dict=False)
    assert torch.equal(sample, vae.native.decode(z, timestep=at).sample)
    assert not torch.equal(sample, decoded(vae, z))
    assert isinstance(ours("kl").decode(latent("kl"), False, torch.Generator()), tuple)
    with pytest.raises(TypeError, match="temb"):
        ours("kl").decode(latent("kl"), temb=at)


@pytest.mark.parametrize("name", IN_DIFFUSERS)
def test_saved(name: str, tmp_path: Path) -> None:
    """Diffusers' own class loads it strictly, and so does vaeport."""
    vae, theirs = ours(name), original(name, torch.float64)
    vae.save_pretrained(tmp_path / "vae", max_shard_size="100KB")
    again, report = type(theirs).from_pretrained(tmp_path / "vae", output_loading_info=True, torch_dtype=torch.float64)
    assert not any(report.values())
    assert vars(again)["use_tiling"] is False
    assert [getattr(again, r, None) for r in RATIOS] == [getattr(vae, r, None) for r in RATIOS]
    expected = theirs.state_dict()
    assert all(torch.equal(weight, expected[key]) for key, weight in again.state_dict().items())
    native = vaeport.load(tmp_path / "vae")
    assert type(native) is type(vae.native)
    assert native.weights_hash() == vae.native.weights_hash()


def test_changed_configuration_is_saved(tmp_path: Path) -> None:
    """As the upscaling pipeline changes it."""
    vae = own("kl")
    vae.register_to_config(scaling_factor=0.08333, force_upcast=False)
    vae.save_pretrained(tmp_path / "vae", variant="fp16")
    again = vaeport.load(tmp_path / "vae", variant="fp16")
    assert again.contract.scale == 0.08333
    assert again.arch.force_upcast is False
    assert vae.native.contract.scale != 0.08333
    vae.save_pretrained(tmp_path / "elsewhere", is_main_process=False)
    assert not (tmp_path / "elsewhere").exists()
    vae.register_to_config(act_fn="relu")
    with pytest.raises(ConfigError, match="act_fn"):
        vae.save_pretrained(tmp_path / "other")


def test_compression_is_not_guessed(tmp_path: Path) -> None:
    """A file of LTX-Video 0.9.5 or LTX-2 states no compression; Diffusers' class would take 64 and 16."""
    silent = {key: value for key, value in LTX5.to_published().items() if key not in RATIOS}
    assert diffusers.AutoencoderKLLTXVideo.from_config(silent).spatial_compression_ratio == 64
    for name in ("ltx", "ltx1", "ltx5", "ltx2", "ltx23"):
        vae = ours(name)
        assert [getattr(vae, r) for r in RATIOS] == [vae.config[r] for r in RATIOS] == [32, 8]


@pytest.mark.parametrize("name", ["kl", "ltx1", "oobleck8"])
@pytest.mark.parametrize("copied", [deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))], ids=["copy", "pickle"])
def test_copies(name: str, copied: Callable[[Any], Any]) -> None:
    vae, z = own(name), latent(name)
    vae.enable_slicing()
    if name == "kl":
        vae.enable_tiling()
    expected = decoded(vae, z)
    twin = copied(vae)
    assert type(twin) is type(vae)
    assert twin.config == vae.config
    assert twin.use_slicing
    assert twin.encoder is twin.native.encoder
    assert twin.encoder is not vae.encoder
    assert torch.equal(decoded(twin, z), expected)
    twin.float()
    assert (twin.native.dtype, vae.dtype) == (torch.float32, torch.float64)


def test_slices() -> None:
    """One sample at a time, each with its own timestep."""
    vae, z, at = ours("ltx5"), latent("ltx5"), torch.tensor([0.05, 0.4], dtype=torch.float64)
    whole, x = vae.decode(z, at).sample, media("ltx5")
    vae.enable_slicing()
    require_close(vae.decode(z, at).sample, whole, 1e-12)
    require_close(vae.decode(z, at[:1]).sample[:1], whole[:1], 1e-12)
    require_close(vae.encode(x).latent_dist.mean, vae.native.encode(x).latent_dist.mean, 1e-12)
    vae.disable_slicing()
    assert torch.equal(vae.decode(z, at).sample, whole)


@pytest.mark.parametrize("name", ["kl", "oobleck8"])
def test_tiles_are_exact_plans(name: str) -> None:
    vae, x, z = own(name), media(name), latent(name)
    mean, sample = vae.encode(x).latent_dist.mean, decoded(vae, z)
    vae.enable_tiling()
    assert isinstance(vae.ways.running("decode", z, vae), ParallelTiledVAE)
    require_close(vae.encode(x).latent_dist.mean, mean, 1e-12)
    require_close(decoded(vae, z), sample, 1e-12)
    if name == "kl":
        vae.float()  # another plan for another type
        assert decoded(vae, z.float()).dtype == torch.float32
    vae.disable_tiling()
    assert vae.ways.running("decode", z, vae) is vae.native


def test_plans_keep_no_gradients() -> None:
    vae, z = own("kl"), latent("kl").requires_grad_()
    vae.decode(z).sample.sum().backward()
    assert z.grad is not None
    vae.enable_tiling()
    with pytest.raises(InputError, match="gradients"):
        vae.decode(z)


WHOLE = {"use_framewise_encoding": False, "use_framewise_decoding": False}


@pytest.mark.parametrize(
    ("name", "shape", "flags", "blended"),
    [
        ("kl", (2, 3, 40, 72), {"use_tiling": True}, True),
        ("wan", (1, 3, 5, 16, 264), {"use_tiling": True}, True),
        ("hunyuan_video", (1, 3, 21, 16, 24), {}, True),
        ("hunyuan_video", (1, 3, 21, 16, 24), WHOLE, False),
        ("hunyuan_video", (1, 3, 5, 16, 264), {"use_tiling": True, **WHOLE}, True),
    ],
)
def test_tiles_of_diffusers(name: str, shape: tuple[int, ...], flags: dict[str, bool], blended: bool) -> None:
    """Blended as there, by the same flags."""
    vae, theirs, x = ours(name, torch.float32, tiling="diffusers"), deepcopy(original(name)), media(name, shape).float()
    z = vae.native.encode(x).latent_dist.mode()
    for side in (vae, theirs):
        for flag, value in flags.items():
            setattr(side, flag, value)
    require_close(vae.encode(x).latent_dist.mean, theirs.encode(x).latent_dist.mean, 1e-4)
    sample = decoded(vae, z)
    require_close(sample, decoded(theirs, z), 1e-4)
    assert (float((sample - vae.native.decode(z).sample).abs().max()) > 1e-3) == blended


def test_sizes_of_tiles() -> None:
    """They do not matter to plans, and cannot be chosen for published tiles."""
    z, exact, blended = latent("wan")[:1, :, :1], ours("wan"), ours("wan", tiling="diffusers")
    exact.enable_tiling(tile_sample_min_height=128, tile_sample_stride_height=96)
    require_close(decoded(exact, z), exact.native.decode(z).sample, 1e-12)
    blended.enable_tiling(tile_sample_min_height=128)
    with pytest.raises(ConfigError, match="tile_sample_min_height=128"):
        blended.decode(z)


def test_halves(tmp_path: Path) -> None:
    """Of one type each, or one of them alone."""
    folder = saved("autoencoder_kl", tmp_path / "vae")
    vae = load(tmp_path, encoder_dtype="float32", decoder_dtype="bfloat16")
    x = media("kl", (1, 3, 16, 16)).to(vae.dtype)
    mean = vae.encode(x).latent_dist.mean
    assert mean.dtype == torch.float32
    assert vae.decode(mean.to(vae.dtype)).sample.dtype == torch.bfloat16
    decoder = load(folder, subfolder=None, load_encoder=False)
    assert decoder.decode(mean).sample.shape == x.shape
    with pytest.raises(InputError, match="without its encoder"):
        decoder.encode(x)
    with pytest.raises(InputError, match="without its encoder"):
        decoder.save_pretrained(tmp_path / "half")
    vae.encoder = None  # as is done to free its memory
    assert vae.native.encoder is None
    assert torch.equal(vae.decode(mean.bfloat16()).sample, decoder.to(torch.bfloat16).decode(mean.bfloat16()).sample)


Refused = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("name", "call", "error", "text"),
    [
        ("kl", lambda v: v.quant_conv(latent("kl")), InputError, "part of the encoder"),
        ("kl", lambda v: v.tiled_decode(latent("kl")), ConfigError, "enable_tiling"),
        ("kl", lambda v: setattr(v, "decoder", torch.nn.Identity()), ConfigError, r"vae\.decode = torch\.compile"),
        ("kl", lambda v: v.enable_layerwise_casting(torch.float8_e4m3fn), ConfigError, "dtype"),
        ("kl", lambda v: v.save_pretrained("/nowhere", safe_serialization=False), ConfigError, "safetensors"),
        ("kl", lambda v: v.save_pretrained("/nowhere", push_to_hub=True), ConfigError, "hf upload"),
        ("kl", lambda v: v.from_config(v.config), ConfigError, "as_diffusers"),
        ("kl", lambda v: v.enable_gradient_checkpointing(), ValueError, "gradient checkpointing"),
        ("kl", lambda v: v.enable_group_offload(torch.device("cpu")), ValueError, "group offloading"),
        ("kl", lambda v: v.encode(media("kl").float()), InputError, "differ in type"),
        ("ltx2", lambda v: v.decode(latent("ltx2"), causal=True), ConfigError, "causal"),
    ],
)
def test_refused_calls(name: str, call: Refused, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(own(name))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: as_diffusers(_with(both("wan", torch.float64)[0], latents="normalized")),
            "normalise latents themselves",
        ),
        (lambda: as_diffusers(tiled(both("wan", torch.float64)[0], "diffusers")), "tiled already"),
        (lambda: ours("wan", tiling="official"), "one of diffusers"),
        (lambda: ours("magvit", tiling="diffusers"), "no published code tiles magvit"),
        (lambda: as_diffusers(ParallelTiledVAE(both("wan", torch.float64)[0]), tiling="diffusers"), "plans are exact"),
        (lambda: as_diffusers(MODELS["gamecraft"][0](MODELS["gamecraft"][1])), "AutoencoderKLCausal3D"),
    ],
)
def test_refused_vaes(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


def _with(vae: Any, **config: Any) -> Any:
    return type(vae)(vae.arch, type(vae.config)(**config))


def test_without_diffusers() -> None:
    code = """
import sys
sys.modules["diffusers"] = None
from vaeport.errors import BlockedError
from vaeport.interop.diffusers import as_diffusers
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
try:
    as_diffusers(Oobleck(OobleckArchConfig(encoder_hidden_size=4, decoder_input_channels=2, decoder_channels=2)))
except BlockedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'vaeport[diffusers]'" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["kl", "wan", "hunyuan_video", "magvit", "ltx5", "ltx2", "oobleck"])
def test_nothing_that_pipelines_read_is_missing(name: str) -> None:
    """What any pipeline of the installed Diffusers asks its VAE for, and Diffusers' VAE has."""
    text = "\n".join(path.read_text() for path in Path(diffusers.__file__).parent.glob("*pipelines/**/*.py"))
    vae, theirs = ours(name), original(name, torch.float64)
    read = set(re.findall(r"(?:self|components)\.vae\.(\w+)", text))
    assert {"encode", "decode", "dtype", "config", "latents_mean", "temperal_downsample", "hop_length"} <= read
    assert not [attribute for attribute in read if hasattr(theirs, attribute) and not hasattr(vae, attribute)]
    settings = set(re.findall(r"(?:self|components)\.vae\.config\.(\w+)", text))
    assert {"scaling_factor", "z_dim", "force_upcast"} <= settings
    assert not [key for key in settings if hasattr(theirs.config, key) and not hasattr(vae.config, key)]
