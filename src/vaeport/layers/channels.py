"""Parameter-free changes of the number of channels: what a shortcut does where the main branch has a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from vaeport.layers.layer import Layer


class GroupMean(Layer):
    """The mean of each group of neighbouring channels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> [B, groups, *axes]."""
        return x if x.shape[1] == self.groups else x.unflatten(1, (self.groups, -1)).mean(2)


class RepeatChannels(Layer):
    """Every channel `times` times in succession: 0 0 1 1 2 2."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> [B, times * C, *axes]."""
        return x if self.times == 1 else x.repeat_interleave(self.times, 1)


class TileChannels(Layer):
    """All channels `times` times in succession: 0 1 2 0 1 2."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> [B, times * C, *axes]."""
        return x if self.times == 1 else x.repeat(1, self.times, *(1,) * (x.dim() - 2))


class SharedLogvar(Layer):
    """Moments whose one log-variance serves all `latent_channels` means."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, Z + 1, *axes] -> [B, 2 Z, *axes]."""
        mean, logvar = x.split((self.latent_channels, 1), 1)
        return torch.cat((mean, logvar.expand_as(mean)), 1)
