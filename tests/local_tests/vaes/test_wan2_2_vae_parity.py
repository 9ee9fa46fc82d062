"""Parity of the wan2_2 vae with AutoencoderKLWan, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_wan2_2_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="wan2_2",
    component="vae",
    native="wan2_2",
    arch="wan2.2",
    reference="diffusers:AutoencoderKLWan",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_wan2_2_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
