"""Key layouts of Wan 2.2: Diffusers, and the official `Wan2.2_VAE.pth`, whose blocks lie in one list per level."""

from vaeport.mapping.rules import Layout
from vaeport.weights.wan import DIFFUSERS_NAMES, DIFFUSERS_NOTES, OFFICIAL_NAMES, OFFICIAL_NOTES, rules

# the decoder's last level has no shortcut around it
_LEVELS = ("levels.{i}.main", "levels.{i}")

DIFFUSERS = Layout(
    name="diffusers",
    rules=rules(
        **DIFFUSERS_NAMES,
        levels=_LEVELS,
        blocks=("down_blocks.{i}.resnets.{j}", "up_blocks.{i}.resnets.{j}"),
        ways=("down_blocks.{i}.downsampler", "up_blocks.{i}.upsampler"),
    ),
    dtype_notes=DIFFUSERS_NOTES,
)

OFFICIAL = Layout(
    name="wan2.2-official",
    rules=rules(
        **OFFICIAL_NAMES,
        levels=_LEVELS,
        blocks=("downsamples.{i}.downsamples.{j}", "upsamples.{i}.upsamples.{j}"),
        # the way lies behind the two blocks of an encoder's level, and the three of a decoder's
        ways=("downsamples.{i}.downsamples.2", "upsamples.{i}.upsamples.3"),
    ),
    dtype_notes=OFFICIAL_NOTES,
)

LAYOUTS = (DIFFUSERS, OFFICIAL)
