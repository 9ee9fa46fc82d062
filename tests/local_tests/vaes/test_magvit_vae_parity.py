"""Parity of the magvit vae with its official implementation; written by `vaeport port`.

pytest tests/local_tests/vaes/test_magvit_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

from vaeport.port.parity import Parity

PARITY = Parity(
    family="magvit",
    component="vae",
    native="magvit",
    arch="easyanimate-v5.1",
    reference="diffusers:AutoencoderKLMagvit",
    reference_args={
        "_class_name": "AutoencoderKLMagvit",
        "in_channels": 3,
        "latent_channels": 16,
        "out_channels": 3,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": [
            "SpatialDownBlock3D",
            "SpatialTemporalDownBlock3D",
            "SpatialTemporalDownBlock3D",
            "SpatialTemporalDownBlock3D",
        ],
        "up_block_types": [
            "SpatialUpBlock3D",
            "SpatialTemporalUpBlock3D",
            "SpatialTemporalUpBlock3D",
            "SpatialTemporalUpBlock3D",
        ],
        "layers_per_block": 2,
        "act_fn": "silu",
        "norm_num_groups": 32,
        "scaling_factor": 0.7125,
        "spatial_group_norm": True,
    },
    convention={},
    weights="$MAGVIT_VAE_WEIGHTS/diffusion_pytorch_model.safetensors",
    converted="docs/ports/magvit_vae/converted/vae",
    flow="docs/ports/magvit_vae/official_flow.json",
    coverage_scope="both",
    dtypes=("float32", "bfloat16"),
)


def test_magvit_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
