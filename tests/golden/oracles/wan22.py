"""Wan 2.2: WanVAE_ of TI2V-5B, loaded by the official wrapper from a checkpoint file as it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .wan import ARGUMENTS, Wan21


class Wan22(Wan21):
    """The VAE of Wan 2.2 TI2V-5B: patches of 2x2, wider, with shortcuts around every stage."""

    name = "wan2_2"
    repo = "Wan-Video/Wan2.2"
    published_file = "Wan2.2_VAE.pth"
    module = "wan.modules.vae2_2"
    wrapper = "Wan2_2_VAE"
    # As in _video_vae and Wan2_2_VAE.
    arguments = ARGUMENTS | {"dim": 160, "dec_dim": 256, "z_dim": 48}
    encoded: Mapping[str, Sequence[int]] = {
        "encode_image": (2, 3, 1, 48, 32),
        "encode_video": (1, 3, 9, 32, 48),
        "encode_6x32x16": (1, 3, 6, 32, 16),
    }
    decoded: Mapping[str, Sequence[int]] = {"decode_image": (2, 48, 1, 3, 2), "decode_video": (1, 48, 3, 2, 3)}
    taps = (
        *("conv1", "conv2", "*coder.conv1", "*coder.middle.?", "*coder.head.[02]"),
        *("*coder.*samples.?", "*coder.*samples.?.*samples.?"),
    )

    def __init__(self) -> None:
        super().__init__()
        # Few tokens attend almost uniformly otherwise, and the wrapper's clamp must act on some decoded values.
        self.scale = {"*.middle.1.to_qkv.weight": 1.5, "decoder.head.2.*": 1.2}
