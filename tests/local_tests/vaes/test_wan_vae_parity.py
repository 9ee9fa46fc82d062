"""Parity of the wan vae with AutoencoderKLWan, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_wan_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="wan",
    component="vae",
    native="wan",
    arch="wan2.1",
    reference="diffusers:AutoencoderKLWan",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_wan_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
