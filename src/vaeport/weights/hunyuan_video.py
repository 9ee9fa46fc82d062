"""Key layouts of HunyuanVideo: Diffusers' keys, which the official `pytorch_model.pt` has behind a prefix."""

from dataclasses import replace

from vaeport.mapping.rules import DtypeNote, Layout
from vaeport.weights.autoencoder_kl import DIFFUSERS_NAMES, rules

_NEAREST = DtypeNote(
    "free upsample",
    "the official class widens to float32 around nearest upsampling, which only copies values",
)

DIFFUSERS = Layout(
    name="diffusers", rules=rules(**DIFFUSERS_NAMES, shortcut="conv_shortcut.conv"), dtype_notes=(_NEAREST,)
)

OFFICIAL = replace(DIFFUSERS, name="hunyuan-official", prefixes=("vae.",))

LAYOUTS = (DIFFUSERS, OFFICIAL)
