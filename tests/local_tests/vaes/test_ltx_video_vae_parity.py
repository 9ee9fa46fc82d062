"""Parity of the ltx_video vae with AutoencoderKLLTXVideo, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_ltx_video_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="ltx_video",
    component="vae",
    native="ltx_video",
    arch="ltxv-0.9.0",
    reference="diffusers:AutoencoderKLLTXVideo",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_ltx_video_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
