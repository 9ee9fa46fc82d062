"""The models at narrow widths with drawn weights: in memory, beside Diffusers', in folders, and in proofs.

Strides and numbers of layers are the published ones, but for `KL4` and `OOBLECK8`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import torch
from torch import Tensor

from tests.layers.laws import difference, filled, normal
from vaeport.configs import VAEArchConfig
from vaeport.layers import Layer
from vaeport.mapping import plan
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.gamecraft import GameCraft, GameCraftArchConfig
from vaeport.models.hunyuan_video import HunyuanVideo, HunyuanVideoArchConfig
from vaeport.models.ltx2 import LTX2ArchConfig, LTX2Video
from vaeport.models.ltx_video import LTXVideo, LTXVideoArchConfig
from vaeport.models.magvit import Magvit, MagvitArchConfig
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.models.wan2_2 import Wan22, Wan22ArchConfig
from vaeport.proof.calling import Convention
from vaeport.proof.draw import draw_state
from vaeport.proof.noise import drawn_noise
from vaeport.proof.prove import Proof
from vaeport.proof.setup import timestep_argument
from vaeport.proof.sides import NativeSide, ReferenceSide, Side
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.vae import VAE

KL = AutoencoderKLArchConfig(block_out_channels=(16, 16, 32, 32), layers_per_block=2, norm_num_groups=8)
KL4 = AutoencoderKLArchConfig(block_out_channels=(64, 64, 128), latent_channels=4, scaling_factor=0.3, shift_factor=0.1)
"""4 pixels a latent, for what runs in files"""
KL16 = KL.replace(
    latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
)
WAN = WanArchConfig(base_dim=8, z_dim=4, latents_mean=(0.1, -0.2, 0.3, 0.0), latents_std=(1.5, 0.7, 2.0, 1.0))
WAN22 = Wan22ArchConfig(
    base_dim=8, decoder_base_dim=12, z_dim=4, latents_mean=WAN.latents_mean, latents_std=WAN.latents_std
)
HUNYUAN = HunyuanVideoArchConfig(block_out_channels=(16, 16, 32, 32), norm_num_groups=8, latent_channels=4)
GAMECRAFT = GameCraftArchConfig(
    block_out_channels=(16, 16, 32, 32), norm_num_groups=8, latent_channels=4, mid_block_causal_attn=True
)
"""the function of HunyuanVideo's; Diffusers has no class of GameCraft's options"""
GAMECRAFT_OPEN = GAMECRAFT.replace(mid_block_causal_attn=False, disable_causal_conv=True)
LTX = LTXVideoArchConfig(
    block_out_channels=(8, 16, 32, 32),
    decoder_block_out_channels=(8, 16, 32, 32),
    layers_per_block=(2, 1, 1, 1, 2),
    decoder_layers_per_block=(1, 2, 1, 1, 2),
    latent_channels=4,
)
"""strided ways, widening and narrowing blocks (0.9.0)"""
LTX1 = LTX.replace(
    decoder_block_out_channels=(16, 32, 64),
    decoder_layers_per_block=(2, 1, 2, 1),
    decoder_spatio_temporal_scaling=(True,) * 3,
    decoder_inject_noise=(True, True, True, False),
    upsample_residual=(True,) * 3,
    upsample_factor=(2,) * 3,
    timestep_conditioning=True,
)
"""a timestep and noise (0.9.1)"""
LTX5 = LTX1.replace(
    block_out_channels=(8, 16, 32, 64, 64),
    down_block_types=("LTXVideo095DownBlock3D",) * 4,
    downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    spatio_temporal_scaling=(True,) * 4,
    decoder_inject_noise=(False,) * 4,
)
"""folded ways and a timestep (0.9.5)"""
LTX2 = LTX2ArchConfig(
    block_out_channels=(8, 16, 32, 64),
    decoder_block_out_channels=(16, 32, 64),
    layers_per_block=(1, 2, 1, 1, 2),
    decoder_layers_per_block=(2, 1, 2, 1),
    latent_channels=4,
    decoder_causal=False,
)
LTX23 = LTX2.replace(
    decoder_block_out_channels=(16, 32, 32, 64),
    decoder_layers_per_block=(2, 1, 2, 1, 1),
    upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    upsample_residual=(False,) * 4,
    upsample_factor=(2, 2, 1, 2),
    decoder_spatial_padding_mode="zeros",
)
MAGVIT = MagvitArchConfig(block_out_channels=(8, 8, 16, 16), latent_channels=4, norm_num_groups=4, scaling_factor=0.3)
OOBLECK = OobleckArchConfig(
    encoder_hidden_size=16, decoder_input_channels=8, decoder_channels=8, channel_multiples=(1, 1, 2, 2, 2)
)
OOBLECK8 = OOBLECK.replace(downsampling_ratios=(2, 4), channel_multiples=(1, 2))
"""8 samples a latent, for what needs many latents"""

MODELS: dict[str, tuple[type[VAE], VAEArchConfig]] = {
    "kl": (AutoencoderKL, KL),
    "kl16": (AutoencoderKL, KL16),
    "wan": (Wan, WAN),
    "wan2_2": (Wan22, WAN22),
    "hunyuan_video": (HunyuanVideo, HUNYUAN),
    "gamecraft": (GameCraft, GAMECRAFT),
    "gamecraft_open": (GameCraft, GAMECRAFT_OPEN),
    "magvit": (Magvit, MAGVIT),
    "ltx": (LTXVideo, LTX),
    "ltx1": (LTXVideo, LTX1),
    "ltx5": (LTXVideo, LTX5),
    "ltx2": (LTX2Video, LTX2),
    "ltx23": (LTX2Video, LTX23),
    "oobleck": (Oobleck, OOBLECK),
    "oobleck8": (Oobleck, OOBLECK8),
}
ARCHS: dict[str, VAEArchConfig] = {"autoencoder_kl": KL4, "wan": WAN, "oobleck": OOBLECK8}
"""by native name"""
IN_DIFFUSERS = tuple(name for name, (_, arch) in MODELS.items() if hasattr(diffusers, arch.class_names[0]))
TIMESTEP = 0.05
"""of decoders that know one, by contract and in the pipelines"""
MEDIA = {
    "kl": (2, 3, 40, 24),
    "kl16": (2, 3, 24, 40),
    "wan": (2, 3, 9, 16, 24),
    "wan2_2": (2, 3, 9, 32, 48),
    **dict.fromkeys(("hunyuan_video", "gamecraft", "magvit"), (2, 3, 9, 16, 24)),
    "gamecraft_open": (2, 3, 8, 16, 24),
    **dict.fromkeys(("ltx", "ltx1", "ltx5", "ltx2", "ltx23"), (2, 3, 17, 64, 96)),
    "oobleck": (2, 2, 6144),
    "oobleck8": (2, 2, 96),
}


@cache
def native(name: str) -> VAE:
    """The model in float64. Shared by tests, so none may change it."""
    model, arch = MODELS[name]
    return filled(model(arch))


def media(name: str, shape: tuple[int, ...] | None = None, seed: int = 0) -> Tensor:
    """Input of the given shape, in -1..1."""
    return normal(*(shape or MEDIA[name]), seed=seed).tanh()


def latent(name: str, seed: int = 0) -> Tensor:
    """A latent as `media` has."""
    return normal(*native(name).contract.latent_shape(MEDIA[name]), seed=seed)


def decoder(name: str, seed: int = 0) -> Layer:
    """The decoder as a layer, told the contract's timestep; its noise, if it adds any, is drawn from `seed`."""
    return native(name).decoder_at(generator=torch.Generator().manual_seed(seed))


def half(name: str, of: str) -> Layer:
    """The "encoder", or `decoder` as above."""
    layer = native(name).encoder if of == "encoder" else decoder(name)
    assert layer is not None
    return layer


def decoded(vae: VAE, z: Tensor, seed: int = 0) -> Tensor:
    """What `decode` gives, with noise drawn from `seed`."""
    return vae.decode(z, generator=torch.Generator().manual_seed(seed)).sample


def weight_map(model: type[VAE]) -> ModuleType:
    """The map of a model: the file of the same name in `weights`."""
    return importlib.import_module(model.__module__.replace("vaeport.models", "vaeport.weights"))


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of its weights."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def on_meta(model: type[VAE], arch: VAEArchConfig) -> VAE:
    """A model of any width without weights."""
    with torch.device("meta"):
        return model(arch)


def diffusers_class(arch: VAEArchConfig) -> Any:
    """The class that a published config names."""
    return getattr(diffusers, arch.class_names[0])


def reference(arch: VAEArchConfig) -> Any:
    """Diffusers' model of a published config, on the current device."""
    return diffusers_class(arch).from_config(arch.to_published()).eval().requires_grad_(False)


@cache
def both(name: str, dtype: torch.dtype) -> tuple[VAE, Any]:
    """The native model and Diffusers', with the same drawn weights, converted by the map."""
    model, arch = MODELS[name]
    theirs, ours = reference(arch), model(arch)
    theirs.load_state_dict(draw_state(shapes(theirs), seed=1))
    theirs = theirs.to(dtype)
    state = theirs.state_dict()
    layout = weight_map(model).DIFFUSERS
    found = plan(layout, shapes(ours), shapes(theirs)).require(name, "fix the map")
    ours.load_state_dict(dict(found.convert(lambda key: state[key])), strict=True)
    return ours.to(dtype).requires_grad_(False), theirs


def their_sample(theirs: Any, z: Tensor, timestep: float = TIMESTEP) -> Tensor:
    """What Diffusers' model decodes, which it is told a timestep for where it knows one."""
    timed = getattr(theirs.config, "timestep_conditioning", False)
    told = {"temb": torch.full((len(z),), timestep, dtype=z.dtype)} if timed else {}
    sample: Tensor = theirs.decode(z, **told).sample
    return sample


def relative_errors(ours: VAE, theirs: Any, x: Tensor, z: Tensor) -> list[float]:
    """rms differences from Diffusers' moments of x and sample of z, each over the rms of Diffusers' own.

    Noise that a decoder adds is the same on both sides.
    """
    errors = []
    with drawn_noise():
        sample = ours.decode(z).sample
    with drawn_noise():
        their = their_sample(theirs, z)
    for found, expected in (
        (ours.encode(x).latent_dist.parameters, theirs.encode(x).latent_dist.parameters),
        (sample, their),
    ):
        assert found.dtype == expected.dtype == x.dtype
        errors.append(difference(found.double(), expected.double()) / float(expected.double().square().mean().sqrt()))
    return errors


def drawn(name: str, seed: int = 0) -> VAE:
    """A narrow model whose weights are drawn from `seed`."""
    vae = ModelRegistry.find(name).model(ARCHS[name])
    state = vae.state_dict()
    published = {k.replace("log_", "").replace("gain", "gamma"): tuple(t.shape) for k, t in state.items()}
    vae.load_state_dict(dict(zip(state, draw_state(published, seed).values(), strict=True)))
    return vae.eval().requires_grad_(False)


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """`drawn` as a Diffusers folder."""
    drawn(name, seed).save(folder)
    return folder


Fault = Callable[[VAE], Any]


def narrow(name: str) -> tuple[type[VAE], VAEArchConfig]:
    """The class and the narrow config of a native name (`ARCHS`), or of a name in `MODELS`."""
    return (ModelRegistry.find(name).model, ARCHS[name]) if name in ARCHS else MODELS[name]


def native_side(name: str, fault: Fault | None = None) -> NativeSide:
    """The native model of a narrow config; `fault` changes the loaded VAE in place."""
    model, arch = narrow(name)

    def opened(path: Path) -> VAE:
        vae = load(path)
        if fault is not None:
            fault(vae)
        return vae

    return NativeSide(name, lambda: model(arch), opened)


def proof(name: str, fault: Fault | None = None, *, reference: Side | None = None, **options: Any) -> Proof:
    """A proof of a narrow model against Diffusers; gate S alone unless dtypes are named."""
    model, arch = narrow(name)
    published = arch.to_published()
    path, timestep = f"diffusers:{published['_class_name']}", model.contract_of(arch).decode_timestep
    told = Convention(decode_arguments=timestep_argument(path, timestep))
    side = reference or ReferenceSide(path, published, convention=told)
    layouts = ModelRegistry.find_class(model).layouts
    return Proof(side, native_side(name, fault), layouts, **{"dtypes": (), **options})
