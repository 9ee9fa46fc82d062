"""Parity of the hunyuan_video vae with its official implementation; written by `vaeport port`.

pytest tests/local_tests/vaes/test_hunyuan_video_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

from vaeport.port.parity import Parity

PARITY = Parity(
    family="hunyuan_video",
    component="vae",
    native="hunyuan_video",
    arch="hunyuan_video",
    reference="$HUNYUAN_VIDEO_VAE_OFFICIAL/autoencoder_kl_causal_3d.py:AutoencoderKLCausal3D",
    reference_args={
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 16,
        "down_block_types": [
            "DownEncoderBlockCausal3D",
            "DownEncoderBlockCausal3D",
            "DownEncoderBlockCausal3D",
            "DownEncoderBlockCausal3D",
        ],
        "up_block_types": [
            "UpDecoderBlockCausal3D",
            "UpDecoderBlockCausal3D",
            "UpDecoderBlockCausal3D",
            "UpDecoderBlockCausal3D",
        ],
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "act_fn": "silu",
        "norm_num_groups": 32,
        "sample_size": 256,
        "sample_tsize": 64,
        "scaling_factor": 0.476986,
        "spatial_compression_ratio": 8,
        "time_compression_ratio": 4,
        "mid_block_add_attention": True,
    },
    convention={},
    weights="ck/hunyuan_video/pytorch_model.pt",
    prefix="vae.",
    converted="ports/hunyuan_video_vae/converted/vae",
    flow="ports/hunyuan_video_vae/official_flow.json",
    coverage_scope="both",
    dtypes=("float32", "bfloat16"),
)


def test_hunyuan_video_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
