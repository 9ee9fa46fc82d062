"""Parity of the oobleck vae with AutoencoderOobleck, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_oobleck_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="oobleck",
    component="vae",
    native="oobleck",
    arch="stable-audio-open-1.0",
    reference="diffusers:AutoencoderOobleck",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_oobleck_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
