"""Adapters to official VAE classes, one per golden capture."""

from __future__ import annotations

from .base import Official, Oracle
from .flux import Flux1
from .ldm import LatentDiffusionSD1
from .stable_audio import StableAudio2
from .wan import Wan21

ORACLES: dict[str, Oracle] = {
    oracle.name: oracle for oracle in (LatentDiffusionSD1(), Flux1(), Wan21(), StableAudio2())
}

__all__ = ["ORACLES", "Official", "Oracle"]
