"""Parity of the hunyuan_video vae with AutoencoderKLHunyuanVideo, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_hunyuan_video_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="hunyuan_video",
    component="vae",
    native="hunyuan_video",
    arch="hunyuan_video",
    reference="diffusers:AutoencoderKLHunyuanVideo",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_hunyuan_video_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
