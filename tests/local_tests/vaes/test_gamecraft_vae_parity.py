"""Parity of the gamecraft vae with AutoencoderKLHunyuanVideo, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_gamecraft_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="gamecraft",
    component="vae",
    native="gamecraft",
    arch="gamecraft",
    reference="diffusers:AutoencoderKLHunyuanVideo",
    reference_args={},
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_gamecraft_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
