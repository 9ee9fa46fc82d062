"""Which shards one process makes: every n-th."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vaeport.errors import InputError


@dataclass(frozen=True)
class Share:
    """Rank of `world` ranks that share the work; `local` is its number on its own machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    def of(self, shards: Iterable[int]) -> Iterator[int]:
        """The shards that are this one's."""
        return (shard for shard in shards if shard % self.world == self.rank)


def share_of_torchrun() -> Share | None:
    """What `torchrun` says, None without it; InputError if that makes no sense."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    told = [os.environ.get(name) for name in names]
    if None in told:
        return None
    try:
        rank, world, local = (int(value or "") for value in told)
    except ValueError as error:
        raise InputError("the environment of torchrun makes no sense", where=", ".join(names), found=told) from error
    if not 0 <= rank < world:
        raise InputError("the environment of torchrun makes no sense", expected="RANK < WORLD_SIZE", found=told)
    return Share(rank, world, local)
