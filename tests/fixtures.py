"""What tests of several folders are given: small VAEs with drawn weights, and a look at what is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaeport.vae import VAE


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Neither threads nor partial files."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vaeport")]
    assert not list(tmp_path.rglob(".vaeport-*"))


@pytest.fixture(scope="module")
def kl() -> VAE:
    return _drawn("autoencoder_kl")


@pytest.fixture(scope="module")
def wan() -> VAE:
    return _drawn("wan")


@pytest.fixture(scope="module")
def oobleck() -> VAE:
    return _drawn("oobleck")


def _drawn(name: str) -> VAE:
    from tests.narrow import drawn  # imports Diffusers, which every run of pytest would wait for

    return drawn(name)
