"""Key layouts of AutoencoderKL: Diffusers, and the latent-diffusion original that SD, SD3 and FLUX.1 files have."""

from typing import Any

from vaeport.mapping.rules import Drop, Fuse, Layout, Rule, Units


def _attention(native: str, foreign: str, parts: tuple[str, ...], out: str, trail: int) -> tuple[Rule, ...]:
    matrix = Units(trail=trail)
    return (
        Rule(f"{native}.attention.qkv.weight", f"{foreign}.{{part}}.weight", matrix, Fuse(parts)),
        Rule(f"{native}.attention.qkv.bias", f"{foreign}.{{part}}.bias", fuse=Fuse(parts)),
        Rule(f"{native}.attention.proj.weight", f"{foreign}.{out}.weight", matrix),
        Rule(f"{native}.attention.proj.bias", f"{foreign}.{out}.bias"),
    )


def _residual(native: str, foreign: str, shortcut: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{native}.shortcut.{{rest*}}", f"{foreign}.{shortcut}.{{rest}}"),
        Rule(f"{native}.main.{{rest*}}", f"{foreign}.{{rest}}"),
    )


def rules(
    *,
    shortcut: str,
    blocks: tuple[str, str],
    ways: tuple[str, str],
    middle: tuple[str, str, str],
    attention: tuple[str, tuple[str, ...], str],
    attention_trail: int,
    norm_out: str,
) -> tuple[Rule, ...]:
    """Pairs are of encoder and decoder; middle: block, attention, block; attention: norm, (q, k, v), projection."""
    norm, parts, out = attention
    found = [
        Rule("encoder.quant_conv.{rest*}", "quant_conv.{rest}"),
        Rule("decoder.post_quant_conv.{rest*}", "post_quant_conv.{rest}"),
        *_residual("encoder.levels.{i}.blocks.{j}", f"encoder.{blocks[0]}", shortcut),
        *_residual("decoder.levels.{i}.blocks.{j}", f"decoder.{blocks[1]}", shortcut),
        Rule("encoder.levels.{i}.resample.{rest*}", f"encoder.{ways[0]}.{{rest}}"),
        Rule("decoder.levels.{i}.resample.conv.{rest*}", f"decoder.{ways[1]}.{{rest}}"),
    ]
    for half in ("encoder", "decoder"):
        native, foreign = f"{half}.middle", f"{half}.{middle[1]}"
        found += _residual(f"{native}.block1", f"{half}.{middle[0]}", shortcut)
        found.append(Rule(f"{native}.attention.main.norm.{{rest*}}", f"{foreign}.{norm}.{{rest}}"))
        found += _attention(f"{native}.attention.main", foreign, parts, out, attention_trail)
        found += _residual(f"{native}.block2", f"{half}.{middle[2]}", shortcut)
        ends = (("conv_in", "conv_in"), ("norm_out", norm_out), ("conv_out", "conv_out"))
        found += (Rule(f"{half}.{mine}.{{rest*}}", f"{half}.{theirs}.{{rest}}") for mine, theirs in ends)
    return tuple(found)


DIFFUSERS_NAMES: Any = {
    "blocks": ("down_blocks.{i}.resnets.{j}", "up_blocks.{i}.resnets.{j}"),
    "ways": ("down_blocks.{i}.downsamplers.0.conv", "up_blocks.{i}.upsamplers.0.conv"),
    "middle": ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    "attention": ("group_norm", ("to_q", "to_k", "to_v"), "to_out.0"),
    "attention_trail": 0,
    "norm_out": "conv_norm_out",
}

DIFFUSERS = Layout(
    name="diffusers",
    rules=rules(**DIFFUSERS_NAMES, shortcut="conv_shortcut"),
    spellings=(
        (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    ),
)

LDM = Layout(
    name="ldm",
    prefixes=("first_stage_model.", "vae.", ""),
    rules=rules(
        shortcut="nin_shortcut",
        blocks=("down.{i}.block.{j}", "up.{3-i}.block.{j}"),
        ways=("down.{i}.downsample.conv", "up.{3-i}.upsample.conv"),
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        attention=("norm", ("q", "k", "v"), "proj_out"),
        attention_trail=2,  # 1x1 convolutions
        norm_out="norm_out",
    ),
    drops=(
        Drop(r"loss\..*", "the discriminator and perceptual loss of training"),
        Drop(r"model_ema\..*", "a moving average kept for training"),
    ),
    variants={
        "sd1": r"cond_stage_model\.transformer\..*",
        "sd2": r"cond_stage_model\.model\..*",
        "sdxl": r"conditioner\.embedders\..*",
        "sd3": r"model\.diffusion_model\.joint_blocks\..*",
        # a bare file with 16 latent channels is FLUX's `ae.safetensors`; all-in-one files carry its transformer
        "flux1": r"decoder\.conv_in\.weight|(model\.diffusion_model\.)?double_blocks\..*",
    },
)

LAYOUTS = (DIFFUSERS, LDM)
