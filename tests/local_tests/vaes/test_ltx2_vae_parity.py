"""Parity of the ltx2 vae with AutoencoderKLLTX2Video, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_ltx2_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="ltx2",
    component="vae",
    native="ltx2",
    arch="ltx2.3",
    reference="diffusers:AutoencoderKLLTX2Video",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_ltx2_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
