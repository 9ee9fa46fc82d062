"""What an adapter tells of an official class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..record import Record


@dataclass
class Official:
    """An official model: `model` owns the weights, `parts` are the official objects around it."""

    model: nn.Module
    class_name: str
    arguments: Mapping[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)


class Oracle(ABC):
    """Builds an official class at its published configuration and runs it on small inputs."""

    name: str
    repo: str
    published_file: str
    key_prefix = ""
    import_root = "."
    seed = 1
    taps: tuple[str, ...]
    packages: tuple[str, ...] = ()
    """installed packages whose code is a part of the official class"""

    def __init__(self) -> None:
        self.scale: dict[str, float] = {}
        self.stand_ins: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def build(self, root: Path) -> Official:
        """Import from the checkout at `root` and instantiate."""

    def layout(self, official: Official) -> dict[str, list[int]]:
        """Shapes of the weights, under the keys of the published file without `key_prefix`."""
        return {key: list(value.shape) for key, value in official.model.state_dict().items()}

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        """Load float32 weights by the official class's own strict means; `state` may be emptied to save memory."""
        official.model.load_state_dict(state, strict=True)

    @abstractmethod
    def run(self, official: Official, record: Record) -> None:
        """Encode and decode, and record."""
