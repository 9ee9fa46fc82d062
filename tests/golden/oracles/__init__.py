"""Adapters to official VAE classes, one per golden capture."""

from __future__ import annotations

from .base import Official, Oracle
from .flux import Flux1
from .hunyuan_video import GameCraft, GameCraftOpen, HunyuanVideo
from .ldm import LatentDiffusionSD1
from .ltx2 import LTX20, LTX23
from .ltx_video import LTXVideo, LTXVideo095, LTXVideoTimestep
from .stable_audio import StableAudio2
from .wan import Wan21
from .wan22 import Wan22

ORACLES: dict[str, Oracle] = {
    oracle.name: oracle
    for oracle in (
        *(LatentDiffusionSD1(), Flux1(), Wan21(), StableAudio2()),
        *(Wan22(), HunyuanVideo(), GameCraft(), GameCraftOpen()),
        *(LTXVideo(), LTXVideoTimestep(), LTXVideo095(), LTX20(), LTX23()),
    )
}

__all__ = ["ORACLES", "Official", "Oracle"]
