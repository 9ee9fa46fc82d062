"""Key layouts of Wan 2.1: Diffusers, and the official `Wan2.1_VAE.pth`, whose blocks lie in one flat list."""

from typing import Any

from vaeport.mapping.rules import DtypeNote, Layout, Rule, Units

_VIDEO_GAIN = Units(trail=3)
_IMAGE_GAIN = Units(trail=2)
_MATRIX = Units(trail=2)


def _residual(native: str, foreign: str, names: dict[str, str]) -> tuple[Rule, ...]:
    norm1, conv1, norm2, conv2, shortcut = names.values()
    return (
        Rule(f"{native}.main.norm1.gain", f"{foreign}.{norm1}.gamma", _VIDEO_GAIN),
        Rule(f"{native}.main.conv1.{{rest*}}", f"{foreign}.{conv1}.{{rest}}"),
        Rule(f"{native}.main.norm2.gain", f"{foreign}.{norm2}.gamma", _VIDEO_GAIN),
        Rule(f"{native}.main.conv2.{{rest*}}", f"{foreign}.{conv2}.{{rest}}"),
        Rule(f"{native}.shortcut.{{rest*}}", f"{foreign}.{shortcut}.{{rest}}"),
    )


def _attention(native: str, foreign: str) -> tuple[Rule, ...]:
    inner = f"{native}.layer.main"
    return (
        Rule(f"{inner}.norm.gain", f"{foreign}.norm.gamma", _IMAGE_GAIN),
        Rule(f"{inner}.attention.qkv.weight", f"{foreign}.to_qkv.weight", _MATRIX),
        Rule(f"{inner}.attention.qkv.bias", f"{foreign}.to_qkv.bias"),
        Rule(f"{inner}.attention.proj.weight", f"{foreign}.proj.weight", _MATRIX),
        Rule(f"{inner}.attention.proj.bias", f"{foreign}.proj.bias"),
    )


def _resample(level: str, foreign_down: str, foreign_up: str) -> tuple[Rule, ...]:
    down, up = f"encoder.{level}.resample", f"decoder.{level}.resample"
    return (
        Rule(f"{down}.space.layer.{{rest*}}", f"{foreign_down}.resample.1.{{rest}}"),
        Rule(f"{down}.time.rest.{{rest*}}", f"{foreign_down}.time_conv.{{rest}}"),
        Rule(f"{up}.time.rest.conv.{{rest*}}", f"{foreign_up}.time_conv.{{rest}}"),
        Rule(f"{up}.space.layer.conv.{{rest*}}", f"{foreign_up}.resample.1.{{rest}}"),
    )


def _ends(half: str, conv_in: str, norm_out: str, conv_out: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{half}.conv_in.{{rest*}}", f"{half}.{conv_in}.{{rest}}"),
        Rule(f"{half}.norm_out.gain", f"{half}.{norm_out}.gamma", _VIDEO_GAIN),
        Rule(f"{half}.conv_out.{{rest*}}", f"{half}.{conv_out}.{{rest}}"),
    )


def rules(
    *,
    levels: tuple[str, ...] = ("levels.{i}",),
    residual: dict[str, str],
    quant: tuple[str, str],
    blocks: tuple[str, str],
    ways: tuple[str, str],
    ends: tuple[str, str, str],
    middle: tuple[str, str, str],
) -> tuple[Rule, ...]:
    """Pairs are of encoder and decoder; levels: where native ones lie; middle: block, attention, block."""
    found = [
        Rule("encoder.quant_conv.{rest*}", f"{quant[0]}.{{rest}}"),
        Rule("decoder.post_quant_conv.{rest*}", f"{quant[1]}.{{rest}}"),
    ]
    for level in levels:
        found += _residual(f"encoder.{level}.blocks.{{j}}", f"encoder.{blocks[0]}", residual)
        found += _residual(f"decoder.{level}.blocks.{{j}}", f"decoder.{blocks[1]}", residual)
        found += _resample(level, f"encoder.{ways[0]}", f"decoder.{ways[1]}")
    for half in ("encoder", "decoder"):
        found += _ends(half, *ends)
        found += _residual(f"{half}.middle.block1", f"{half}.{middle[0]}", residual)
        found += _attention(f"{half}.middle.attention", f"{half}.{middle[1]}")
        found += _residual(f"{half}.middle.block2", f"{half}.{middle[2]}", residual)
    return tuple(found)


_NEAREST = DtypeNote(
    "free upsample",
    "the reference widens to float32 around nearest upsampling, which only copies values",
)

_NORMS = DtypeNote(
    r".*\.(norm|norm[12]|norm_out): accumulation",
    "the official class divides by the norm in the type it runs in, which is float32 in its pipelines; "
    "the native one does so in float32 always, as Diffusers does",
)

DIFFUSERS_NOTES = (_NEAREST,)
OFFICIAL_NOTES = (_NEAREST, _NORMS)
DIFFUSERS_NAMES: Any = {
    "residual": {part: part for part in ("norm1", "conv1", "norm2", "conv2")} | {"shortcut": "conv_shortcut"},
    "quant": ("quant_conv", "post_quant_conv"),
    "ends": ("conv_in", "norm_out", "conv_out"),
    "middle": ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
}
OFFICIAL_NAMES: Any = {
    "residual": {
        "norm1": "residual.0",
        "conv1": "residual.2",
        "norm2": "residual.3",
        "conv2": "residual.6",
        "shortcut": "shortcut",
    },
    "quant": ("conv1", "conv2"),
    "ends": ("conv1", "head.0", "head.2"),
    "middle": ("middle.0", "middle.1", "middle.2"),
}

DIFFUSERS = Layout(
    name="diffusers",
    rules=rules(
        **DIFFUSERS_NAMES,
        blocks=("down_blocks.{3*i+j}", "up_blocks.{i}.resnets.{j}"),
        ways=("down_blocks.{3*i+2}", "up_blocks.{i}.upsamplers.0"),
    ),
    dtype_notes=DIFFUSERS_NOTES,
)

OFFICIAL = Layout(
    name="wan-official",
    rules=rules(
        **OFFICIAL_NAMES,
        blocks=("downsamples.{3*i+j}", "upsamples.{4*i+j}"),
        ways=("downsamples.{3*i+2}", "upsamples.{4*i+3}"),
    ),
    dtype_notes=OFFICIAL_NOTES,
)

LAYOUTS = (DIFFUSERS, OFFICIAL)
