"""The inputs that a proof runs on, made from the latent contract, and what makes a case unfit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from vaeport.configs import LatentContract
from vaeport.proof.draw import draw_input, draw_media
from vaeport.proof.precision import Health

RMS_RANGE = (0.05, 20.0)
ENTROPY_RANGE = (0.05, 0.95)
MOST_CLAMPED = 0.1


@dataclass(frozen=True)
class Case:
    """Shapes of the media and the latent that one case runs on; `skip` is a reason why it is not run, which fails."""

    name: str
    media: tuple[int, ...]
    latent: tuple[int, ...]
    skip: str | None = None

    def inputs(self, seed: int) -> tuple[Tensor, Tensor]:
        """Media in the value range and a standard normal latent, in float64."""
        return draw_media(f"{self.name} media", self.media, seed), draw_input(f"{self.name} latent", self.latent, seed)


def cases_of(contract: LatentContract) -> tuple[Case, ...]:
    """A non-square batch, the shortest legal length, and lengths that break the rule where the rule crops them.

    The first has two samples and, for video, 1 + 4 * 2 frames. What is over in the last is odd at several levels, so
    that a window too many is seen.
    """
    steps = {"image": ((5, 7), (1, 2)), "video": ((2, 2, 3), (0, 2, 3)), "audio": ((4,), (1,))}[contract.modality]
    over = {"image": (7, 5), "video": (3, 3, 5), "audio": (2047,)}[contract.modality]
    whole = tuple(0 for _ in contract.axes)
    return (
        _case(contract, "batch", 2, steps[0], whole),
        _case(contract, "shortest", 1, steps[1], whole),
        _case(contract, "odd", 1, _FEW[contract.modality], over),
    )


def uneven_cases(contract: LatentContract) -> tuple[Case, ...]:
    """The odd case of a video with a legal number of frames: a reference that drops frames hides what is spatial."""
    if contract.modality != "video":
        return ()
    uneven = _case(contract, "uneven", 1, _FEW["video"], (0, 3, 5))
    return () if uneven.media == cases_of(contract)[-1].media else (uneven,)


_FEW: Mapping[str, tuple[int, ...]] = MappingProxyType({"image": (5, 6), "video": (1, 2, 3), "audio": (2,)})
"""Steps of each axis in the cases that break the rule."""


def _case(contract: LatentContract, name: str, batch: int, counts: tuple[int, ...], rest: tuple[int, ...]) -> Case:
    """Of `counts` steps along each axis, and `rest` more where the rule crops them."""
    lengths = tuple(
        a.offset + a.multiple * n + (r % a.multiple if a.crops else 0)
        for a, n, r in zip(contract.axes, counts, rest, strict=True)
    )
    media = (batch, contract.channels, *lengths)
    return Case(name, media, contract.latent_shape(media))


def single_case(contract: LatentContract) -> Case:
    """The first case with one sample, which gate P runs under several seeds."""
    first = cases_of(contract)[0]
    return Case("single", (1, *first.media[1:]), (1, *first.latent[1:]))


def unfit(health: Health, clamped: float) -> list[str]:
    """What makes a case unable to show a fault, in words; empty if nothing does."""
    low, high = RMS_RANGE
    if not health.rms:
        return ["no activation was seen, so nothing is known of the case"]
    found = [
        f"activation {name}: rms {a:.3g} to {b:.3g}, not within {low} to {high}"
        for name, (a, b) in health.rms.items()
        if not (low <= a and b <= high)
    ]
    if health.entropy and not (ENTROPY_RANGE[0] <= health.entropy[0] and health.entropy[1] <= ENTROPY_RANGE[1]):
        a, b = health.entropy
        found.append(f"attention entropy {a:.1%} to {b:.1%} of log N, not within 5 % to 95 %")
    if clamped > MOST_CLAMPED:
        found.append(f"{clamped:.1%} of the output is clamped, more than {MOST_CLAMPED:.0%}")
    return found
