"""The bound on what a change that is tried may ask for."""

import sys

import pytest
import torch

from vaeport.drift.memory import at_most

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds are Linux's")


def test_more_than_the_bound_is_an_error_and_only_within() -> None:
    with at_most(2**28):
        assert torch.zeros(2**20).sum() == 0
        with pytest.raises(RuntimeError, match="memory"):
            torch.empty(2**40, dtype=torch.uint8).fill_(1)
    assert torch.empty(2**29, dtype=torch.uint8).numel() == 2**29


def test_an_error_within_lifts_it() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ZeroDivisionError), at_most(2**28):
        raise ZeroDivisionError
    assert resource.getrlimit(resource.RLIMIT_AS) == before
