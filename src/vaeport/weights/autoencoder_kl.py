"""Key layouts of AutoencoderKL: Diffusers, and the latent-diffusion original that SD, SD3 and FLUX.1 files have."""

from vaeport.mapping.rules import Drop, Fuse, Layout, Rule, Units

_HALVES = ("encoder", "decoder")


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


_QUANT = (
    Rule("encoder.quant_conv.{rest*}", "quant_conv.{rest}"),
    Rule("decoder.post_quant_conv.{rest*}", "post_quant_conv.{rest}"),
)
_EDGES = tuple(
    rule
    for half in _HALVES
    for rule in (
        Rule(f"{half}.conv_in.{{rest*}}", f"{half}.conv_in.{{rest}}"),
        Rule(f"{half}.conv_out.{{rest*}}", f"{half}.conv_out.{{rest}}"),
    )
)

DIFFUSERS = Layout(
    name="diffusers",
    rules=(
        *_QUANT,
        *_EDGES,
        *_residual("encoder.levels.{i}.blocks.{j}", "encoder.down_blocks.{i}.resnets.{j}", "conv_shortcut"),
        *_residual("decoder.levels.{i}.blocks.{j}", "decoder.up_blocks.{i}.resnets.{j}", "conv_shortcut"),
        Rule("encoder.levels.{i}.resample.{rest*}", "encoder.down_blocks.{i}.downsamplers.0.conv.{rest}"),
        Rule("decoder.levels.{i}.resample.conv.{rest*}", "decoder.up_blocks.{i}.upsamplers.0.conv.{rest}"),
        *(
            rule
            for half in _HALVES
            for rule in (
                *_residual(f"{half}.middle.block1", f"{half}.mid_block.resnets.0", "conv_shortcut"),
                *_residual(f"{half}.middle.block2", f"{half}.mid_block.resnets.1", "conv_shortcut"),
                Rule(
                    f"{half}.middle.attention.main.norm.{{rest*}}", f"{half}.mid_block.attentions.0.group_norm.{{rest}}"
                ),
                *_attention(
                    f"{half}.middle.attention.main",
                    f"{half}.mid_block.attentions.0",
                    ("to_q", "to_k", "to_v"),
                    "to_out.0",
                    trail=0,
                ),
                Rule(f"{half}.norm_out.{{rest*}}", f"{half}.conv_norm_out.{{rest}}"),
            )
        ),
    ),
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
    rules=(
        *_QUANT,
        *_EDGES,
        *_residual("encoder.levels.{i}.blocks.{j}", "encoder.down.{i}.block.{j}", "nin_shortcut"),
        *_residual("decoder.levels.{i}.blocks.{j}", "decoder.up.{3-i}.block.{j}", "nin_shortcut"),
        Rule("encoder.levels.{i}.resample.{rest*}", "encoder.down.{i}.downsample.conv.{rest}"),
        Rule("decoder.levels.{i}.resample.conv.{rest*}", "decoder.up.{3-i}.upsample.conv.{rest}"),
        *(
            rule
            for half in _HALVES
            for rule in (
                *_residual(f"{half}.middle.block1", f"{half}.mid.block_1", "nin_shortcut"),
                *_residual(f"{half}.middle.block2", f"{half}.mid.block_2", "nin_shortcut"),
                Rule(f"{half}.middle.attention.main.norm.{{rest*}}", f"{half}.mid.attn_1.norm.{{rest}}"),
                *_attention(
                    f"{half}.middle.attention.main", f"{half}.mid.attn_1", ("q", "k", "v"), "proj_out", trail=2
                ),
                Rule(f"{half}.norm_out.{{rest*}}", f"{half}.norm_out.{{rest}}"),
            )
        ),
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
