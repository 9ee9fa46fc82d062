"""Real pipelines of Diffusers around tiny components; prompts are given as embeddings."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from tests.layers.laws import normal
from tests.narrow import LTX1, both

TEXT = 16
"""width of prompt embeddings"""
FLOW = diffusers.FlowMatchEulerDiscreteScheduler


def original(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Diffusers' VAE beside the native one of `tests.narrow`."""
    return copy(both(name, dtype)[1])


def seeded(cls: Any, **options: Any) -> Any:
    """A component with weights from one seed."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return cls(**options).eval().requires_grad_(False)


component = cache(seeded)
"""The same, shared by both sides."""


def unet(**options: Any) -> Any:
    """Two levels, the inner one with attention."""
    return component(
        diffusers.UNet2DConditionModel,
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=TEXT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    )


def clip() -> dict[str, Any]:
    """A tokenizer that knows letters, and its text encoder."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT,
        intermediate_size=TEXT,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    tokens = {word: i for i, word in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=tokens, merges=[], model_max_length=8)
    return {"tokenizer": tokenizer, "text_encoder": seeded(transformers.CLIPTextModel, config=config)}


def stable_diffusion(vae: Any, kind: Any = diffusers.StableDiffusionPipeline, **text: Any) -> Any:
    """Of any of its pipelines; `text`: what `clip` gives, for prompts in words."""
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")) | text
    scheduler = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    return kind(vae=vae, unet=unet(), scheduler=scheduler, **absent, requires_safety_checker=False)


def stable_diffusion_xl(vae: Any) -> Any:
    """With pooled embeddings of 8, and six numbers of 8 each."""
    extra = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return diffusers.StableDiffusionXLPipeline(
        vae=vae,
        unet=unet(**extra, projection_class_embeddings_input_dim=56),
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
        **absent,
    )


def flux(vae: Any, kind: Any = diffusers.FluxPipeline) -> Any:
    """One block of either kind."""
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    transformer = component(
        diffusers.FluxTransformer2DModel,
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    )
    return kind(vae=vae, transformer=transformer, scheduler=FLOW(), **absent)


def wan(vae: Any, kind: Any = diffusers.WanPipeline, *, channels: int = 4, **options: Any) -> Any:
    """One block."""
    transformer = component(
        diffusers.WanTransformer3DModel,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=4,
        text_dim=TEXT,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
    )
    absent = dict.fromkeys(("text_encoder", "tokenizer"))
    return kind(vae=vae, transformer=transformer, scheduler=FLOW(), **absent, **options)


def wan_image(vae: Any) -> Any:
    """The image takes 4 channels, and 4 say which frames are given."""
    return wan(vae, diffusers.WanImageToVideoPipeline, channels=12)


def ltx(vae: Any, kind: Any = diffusers.LTXPipeline) -> Any:
    """One block."""
    transformer = component(
        diffusers.LTXVideoTransformer3DModel,
        in_channels=LTX1.latent_channels,
        out_channels=LTX1.latent_channels,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=TEXT,
    )
    absent = dict.fromkeys(("text_encoder", "tokenizer"))
    return kind(vae=vae, transformer=transformer, scheduler=FLOW(), **absent)


def hunyuan(vae: Any) -> Any:
    """One block of every kind."""
    transformer = component(
        diffusers.HunyuanVideoTransformer3DModel,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=TEXT,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return diffusers.HunyuanVideoPipeline(vae=vae, transformer=transformer, scheduler=FLOW(), **absent)


def easy_animate(vae: Any) -> Any:
    """One block."""
    transformer = component(
        diffusers.EasyAnimateTransformer3DModel,
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        time_embed_dim=8,
        text_embed_dim=TEXT,
        num_layers=1,
        mmdit_layers=1,
        add_norm_text_encoder=True,
    )
    absent = dict.fromkeys(("text_encoder", "tokenizer"))
    return diffusers.EasyAnimatePipeline(vae=vae, transformer=transformer, scheduler=FLOW(), **absent)


def stable_audio(vae: Any) -> Any:
    """4 latents, one block."""
    transformer = component(
        diffusers.StableAudioDiTModel,
        sample_size=4,
        in_channels=8,
        out_channels=8,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    projection = component(
        diffusers.StableAudioProjectionModel, text_encoder_dim=TEXT, conditioning_dim=4, min_value=0, max_value=32
    )
    return diffusers.StableAudioPipeline(
        vae=vae,
        transformer=transformer,
        projection_model=projection,
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(),
        text_encoder=None,
        tokenizer=None,
    )


def text(length: int = 3, width: int = TEXT, seed: int = 5) -> Tensor:
    """Embeddings of a prompt."""
    return normal(1, length, width, seed=seed).float()


def pooled(seed: int = 6) -> Tensor:
    """Pooled embeddings."""
    return normal(1, 8, seed=seed).float()


def image(height: int, width: int) -> Tensor:
    """In 0..1."""
    return normal(1, 3, height, width, seed=7).float().sigmoid()


MASK = torch.ones(1, 3, dtype=torch.int64)
PROMPT = {"prompt_embeds": text(), "negative_prompt_embeds": text(seed=8)}
MASKS = {"prompt_attention_mask": MASK, "negative_prompt_attention_mask": MASK}
PICTURE = {"height": 32, "width": 48, "guidance_scale": 2.0}
CLIP = {"height": 32, "width": 48, "num_frames": 5, "guidance_scale": 2.0}
LONG = {"height": 64, "width": 96, "num_frames": 9, "guidance_scale": 2.0}
FLUX = {"prompt_embeds": text(), "pooled_prompt_embeds": pooled(), "height": 32, "width": 48}
POOLED = {"pooled_prompt_embeds": pooled(), "negative_pooled_prompt_embeds": pooled(9)}
DECODE = {"decode_timestep": 0.05, "decode_noise_scale": 0.025}


@dataclass(frozen=True)
class Case:
    """A pipeline around a VAE of `tests.narrow`, and how it is called."""

    vae: str
    build: Callable[[Any], Any]
    call: dict[str, Any]

    def run(self, pipe: Any, **changes: Any) -> Tensor:
        """The media, float32; all noise comes from one seed."""
        torch.manual_seed(4)
        generator = torch.Generator().manual_seed(3)
        pipe.set_progress_bar_config(disable=True)
        found = pipe(**{"num_inference_steps": 2, "generator": generator, "output_type": "pt"} | self.call | changes)[0]
        return torch.as_tensor(found)


CASES = {
    "sd": Case("kl", stable_diffusion, PROMPT | PICTURE),
    "sd-image": Case(
        "kl",
        lambda vae: stable_diffusion(vae, diffusers.StableDiffusionImg2ImgPipeline),
        PROMPT | {"image": image(32, 48), "strength": 0.8, "num_inference_steps": 3},
    ),
    "sdxl": Case("kl", stable_diffusion_xl, PROMPT | POOLED | PICTURE),
    "flux": Case("kl16", flux, FLUX),
    "flux-image": Case(
        "kl16", lambda vae: flux(vae, diffusers.FluxImg2ImgPipeline), FLUX | {"image": image(32, 48), "strength": 0.8}
    ),
    "wan": Case("wan", wan, PROMPT | CLIP),
    "wan-image": Case("wan", wan_image, PROMPT | CLIP | {"image": image(32, 48)}),
    "wan2.2": Case("wan2_2", lambda vae: wan(vae, expand_timesteps=True), PROMPT | CLIP | {"height": 64, "width": 96}),
    "hunyuan": Case(
        "hunyuan_video",
        hunyuan,
        {"prompt_embeds": text(), "prompt_attention_mask": MASK, "pooled_prompt_embeds": pooled(), **CLIP},
    ),
    "easyanimate": Case("magvit", easy_animate, PROMPT | MASKS | CLIP),
    "ltx-0.9.0": Case("ltx", ltx, PROMPT | MASKS | LONG),
    "ltx-0.9.1": Case("ltx1", ltx, PROMPT | MASKS | LONG | DECODE),
    "ltx-0.9.5-image": Case(
        "ltx5",
        lambda vae: ltx(vae, diffusers.LTXImageToVideoPipeline),
        PROMPT | MASKS | LONG | DECODE | {"image": image(64, 96)},
    ),
    "stable-audio": Case(
        "oobleck",
        stable_audio,
        PROMPT
        | {"attention_mask": MASK, "negative_attention_mask": MASK, "audio_end_in_s": 0.15}
        | {"initial_audio_waveforms": normal(1, 2, 7000, seed=10).float().tanh(), "initial_audio_sampling_rate": 44100},
    ),
}
