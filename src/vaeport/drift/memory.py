"""A bound on what a change that is tried may ask for: a factor that is taken for another can mean terabytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def address_space() -> int:
    """Bytes that the process has now. On Linux alone."""
    import resource

    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Within, the process may have `more` bytes than it has now; to ask for others is an error. On Linux alone."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [address_space() + more, *(bound for bound in (before, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
