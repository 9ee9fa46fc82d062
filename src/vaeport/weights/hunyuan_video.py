"""Key layouts of HunyuanVideo: Diffusers' keys, which the official `pytorch_model.pt` has behind a prefix."""

from dataclasses import replace

from vaeport.mapping.rules import Layout
from vaeport.weights.autoencoder_kl import DIFFUSERS_NAMES, rules

DIFFUSERS = Layout(name="diffusers", rules=rules(**DIFFUSERS_NAMES, shortcut="conv_shortcut.conv"))

OFFICIAL = replace(DIFFUSERS, name="hunyuan-official", prefixes=("vae.",))

LAYOUTS = (DIFFUSERS, OFFICIAL)
