"""Parity of the autoencoder_kl vae with AutoencoderKL, on drawn weights in the published layout.

pytest tests/local_tests/vaes/test_autoencoder_kl_vae_parity.py -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vaeport.port.parity import Parity

PARITY = Parity(
    family="autoencoder_kl",
    component="vae",
    native="autoencoder_kl",
    arch="flux1",
    reference="diffusers:AutoencoderKL",
    coverage_scope="production_loader",
    dtypes=(),
)


@pytest.mark.full
def test_autoencoder_kl_vae_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
