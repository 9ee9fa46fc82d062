"""Stills and clips made of photos, on the device: crops, camera moves, things that pass by, cuts, fades, colours.

All photos lie in one atlas, each beside its halves, quarters and eighths, so that a batch is one gather.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

LEVELS = 4
"""sizes at which a photo is kept: whole, 1/2, 1/4, 1/8"""


def read_photos(path: Path, *, held_out: bool = False) -> tuple[dict[str, Tensor], list[float]]:
    """Photos by name, uint8 [3, H, W], and how often each is drawn; held out: those that are never trained on."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["photos"])
        chosen = [name for name, photo in about.items() if (photo["weight"] == 0) == held_out]
        return {name: file.get_tensor(name) for name in chosen}, [about[name]["weight"] or 1.0 for name in chosen]


@dataclass(frozen=True)
class Camera:
    """Where the middle of each frame looks and how it turns, each [B, T]; photo [B].

    x, y    pixels of the whole photo
    step    of the photo's pixels per pixel of the frame
    turn    radians
    """

    photo: Tensor
    x: Tensor
    y: Tensor
    step: Tensor
    turn: Tensor


class Scenes:
    """Draws batches; the same generator gives the same batch."""

    def __init__(self, photos: list[Tensor], weights: list[float], device: torch.device) -> None:
        self.device = device
        pyramids = [self._pyramid(photo) for photo in photos]
        width = max(sum(level.shape[-1] for level in p) for p in pyramids)
        height = sum(p[0].shape[-2] for p in pyramids)
        self.atlas = torch.zeros(1, 3, height, width, device=device)
        places, top = [], 0
        for pyramid in pyramids:
            left = 0
            for level in pyramid:
                h, w = level.shape[-2:]
                self.atlas[..., top : top + h, left : left + w] = level
                places.append((left, top, w, h))
                left += w
            top += pyramid[0].shape[-2]
        self.places = torch.tensor(places, device=device, dtype=torch.float32).view(len(photos), LEVELS, 4)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)

    def _pyramid(self, photo: Tensor) -> list[Tensor]:
        levels = [photo.to(self.device, torch.float32)[None] / 255]
        while len(levels) < LEVELS:
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels

    def draw(self, batch: int, frames: int, size: int, generator: torch.Generator) -> Tensor:
        """[B, 3, T, size, size] in -1..1, of 256 levels."""
        r = Draws(batch, generator, self.device)
        main = self.look(self._camera(r, frames, size), size)
        other = self.look(self._camera(r, frames, size), size)
        video = torch.lerp(main, other, _cover(r, frames, size))
        return _levels(_coloured(video, r))

    def look(self, camera: Camera, size: int) -> Tensor:
        """[B, 3, T, size, size] in 0..1: what the camera sees; photos go on as in a mirror behind their edges."""
        b, t = camera.x.shape
        level = camera.step.log2().floor().clamp(0, LEVELS - 1).long()
        left, top, w, h = self.places[camera.photo[:, None], level].unbind(-1)
        scale = 0.5**level
        span = torch.arange(size, device=self.device) - (size - 1) / 2
        cos, sin = (
            f(camera.turn)[..., None, None] * (camera.step * scale)[..., None, None] for f in (torch.cos, torch.sin)
        )
        u = (camera.x * scale)[..., None, None] + cos * span - sin * span[:, None]
        v = (camera.y * scale)[..., None, None] + sin * span + cos * span[:, None]
        u = left[..., None, None] + _mirrored(u, w[..., None, None])
        v = top[..., None, None] + _mirrored(v, h[..., None, None])
        height, width = self.atlas.shape[-2:]
        grid = torch.stack((u * (2 / (width - 1)) - 1, v * (2 / (height - 1)) - 1), -1)
        seen = F.grid_sample(self.atlas, grid.view(1, -1, size, 2), mode="bilinear", align_corners=True)
        return seen.view(3, b, t, size, size).transpose(0, 1)

    def _camera(self, r: Draws, frames: int, size: int) -> Camera:
        photo = torch.multinomial(self.weights, r.batch, True, generator=r.generator)
        w, h = self.places[photo, 0, 2:].unbind(-1)
        plain = r.chance(0.5)  # whole pixels of a level, as they are
        step = torch.where(plain, 2.0 ** r.between(0, 2.6).floor(), 2.0 ** r.between(-0.6, 2.2))
        step = torch.minimum(step, torch.minimum(w, h) / size).clamp(min=0.4)
        turn = torch.where(plain, 0.0, r.normal() * 0.2)
        margin = step * size / 2
        x = r.unit() * (w - 2 * margin).clamp(min=0) + margin
        y = r.unit() * (h - 2 * margin).clamp(min=0) + margin
        corner = step * ((size - 1) / 2)
        x, y = (torch.where(plain, ((c - corner) / step).round() * step + corner, c) for c in (x, y))
        time = torch.arange(frames, device=self.device, dtype=torch.float32)
        moving = (~r.chance(0.2)).float()
        shake = (~r.chance(0.7)).float() * moving

        def path(start: Tensor, speed: Tensor, jitter: float) -> Tensor:
            wander = torch.randn(r.batch, frames, generator=r.generator, device=self.device) * jitter
            return start[:, None] + (moving * speed)[:, None] * time + shake[:, None] * wander

        return Camera(
            photo,
            path(x, r.normal() * r.unit() * 4 * step, 0.7),
            path(y, r.normal() * r.unit() * 3 * step, 0.7),
            step[:, None] * torch.exp(path(torch.zeros_like(step), r.normal() * 0.012 * r.chance(0.5), 0.0)),
            path(turn, r.normal() * 0.015 * r.chance(0.5), 0.0),
        )


@dataclass(frozen=True)
class Draws:
    """Random numbers, one per sample: [B]."""

    batch: int
    generator: torch.Generator
    device: torch.device

    def unit(self) -> Tensor:
        """In 0..1."""
        return torch.rand(self.batch, generator=self.generator, device=self.device)

    def between(self, low: float, high: float) -> Tensor:
        """In low..high."""
        return low + (high - low) * self.unit()

    def normal(self) -> Tensor:
        """Standard normal."""
        return torch.randn(self.batch, generator=self.generator, device=self.device)

    def chance(self, share: float) -> Tensor:
        """True for that share."""
        return self.unit() < share


def _mirrored(u: Tensor, length: Tensor) -> Tensor:
    """Positions folded back into 0..length - 1."""
    last = length - 1
    return last - (u.remainder(2 * last) - last).abs()


def _cover(r: Draws, frames: int, size: int) -> Tensor:
    """How much of the second scene shows, [B, 1, T, size, size]: none, a moving shape, all after a cut or fade."""
    kind = r.unit()[:, None, None, None]
    time = torch.arange(frames, device=r.device, dtype=torch.float32)[:, None, None]
    half = size / 2
    x, y, angle, speed = (
        t[:, None, None, None] for t in (r.normal() * half / 2, r.normal() * half / 2, r.unit(), r.normal())
    )
    cos, sin = torch.cos(angle * math.tau), torch.sin(angle * math.tau)
    span = torch.arange(size, device=r.device) - (size - 1) / 2
    across = span - x - speed * 3 * cos * time
    down = span[:, None] - y - speed * 3 * sin * time
    u, v = cos * across + sin * down, cos * down - sin * across
    a, b = (half * r.between(0.05, 0.9)[:, None, None, None] for _ in range(2))
    box = torch.maximum(u.abs() - a, v.abs() - b)
    oval = ((u / a).square() + (v / b).square()).sqrt().sub(1) * torch.minimum(a, b)
    distance = torch.where(r.chance(0.5)[:, None, None, None], box, oval)
    shape = (0.5 - distance).clamp(0, 1)
    start = r.between(0, frames)[:, None, None, None]
    over = torch.where(r.chance(0.6)[:, None, None, None], 0.01, frames / 2)  # a cut takes no time
    joined = ((time - start) / over).clamp(0, 1).expand_as(shape) if frames > 1 else torch.zeros_like(shape)
    return torch.where(kind < 0.45, 0.0, torch.where(kind < 0.85, shape, joined))[:, None]


def _coloured(video: Tensor, r: Draws) -> Tensor:
    """Another exposure, contrast, saturation and hue, the same for all frames."""

    def per(x: Tensor) -> Tensor:
        return x[:, None, None, None, None]

    grey = video.mean(1, keepdim=True)
    video = grey + (video - grey) * per(torch.exp(r.normal() * 0.3))
    hue = torch.where(r.chance(0.5), 0.0, r.between(0, math.tau))
    # a turn around the axis of greys
    mixing = torch.stack([(1 + 2 * torch.cos(hue + k * math.tau / 3)) / 3 for k in (0, 1, -1)], 1)
    rows = mixing[:, torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]], device=video.device)]
    video = torch.einsum("bij,bj...->bi...", rows, video)
    tint = torch.exp(torch.randn(r.batch, 3, 1, 1, 1, generator=r.generator, device=r.device) * 0.12)
    level = video.mean((1, 2, 3, 4), keepdim=True)
    contrast = per(torch.where(r.chance(0.85), torch.exp(r.normal() * 0.25), r.between(0.05, 0.5)))
    video = (level + (video - level) * contrast) * tint + per(r.normal() * 0.08)
    video = video.clamp(0, 1) ** per(torch.exp(r.normal() * 0.25))
    turned = torch.where(per(r.chance(0.5)), video.flip(-1), video)
    return torch.where(per(r.chance(0.2)), turned.transpose(-1, -2), turned)


def _levels(video: Tensor) -> Tensor:
    """0..1 -> the 256 values in -1..1 that files hold."""
    return video.mul(255).round().div(127.5).sub(1)
