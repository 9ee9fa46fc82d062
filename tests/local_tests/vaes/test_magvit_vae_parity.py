"""Parity of the magvit vae with AutoencoderKLMagvit, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_magvit_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="magvit",
    component="vae",
    native="magvit",
    arch="easyanimate-v5.1",
    reference="diffusers:AutoencoderKLMagvit",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_magvit_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
