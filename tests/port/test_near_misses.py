"""Near misses load the reference's weights and compute something else."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from torch import Tensor

from tests.port import scrambled
from tests.port.compared import CONFIGS, EQUAL, difference, outputs, shapes
from tests.port.near_misses import NEAR_MISSES
from tests.port.scramble import scramble

SEEN = 1e-7
"""relative; what differs by less is not told apart"""

CARRIED = {"kl_eps", "kl_attention_eps", "kl_groups", "kl_padding_side", "wan_causality", "wan_decoder_causality"}
"""what a scrambled module can have too; it cannot be made of the others"""


@cache
def reference(name: str) -> tuple[Any, list[Tensor]]:
    """Module and outputs. Shared by tests, so none may change it."""
    module = scrambled.original(name, 0, **CONFIGS[name])
    return module, outputs(module, name)


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_same_keys_and_another_function(miss: str) -> None:
    """Scrambling carries the change, or refuses the module; it never mends it."""
    name = miss.partition("_")[0]
    right, expected = reference(name)
    wrong = NEAR_MISSES[miss](right)
    assert list(shapes(wrong).items()) == list(shapes(right).items())
    wrong.load_state_dict(right.state_dict(), strict=True)
    found = outputs(wrong, name)
    assert [t.shape for t in found] == [t.shape for t in expected]
    print(f"\n{miss}: {difference(found, expected):.1e}")
    assert difference(found, expected) > SEEN
    if miss in CARRIED:
        assert difference(outputs(scramble(wrong, 0)[0], name), found) <= EQUAL
    else:
        with pytest.raises(TypeError, match="as this tool does not know it"):
            scramble(wrong, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_stays(name: str) -> None:
    right, expected = reference(name)
    assert all(change(right) is not right for miss, change in NEAR_MISSES.items() if miss.startswith(name))
    assert difference(outputs(right, name), expected) == 0


def test_every_kind_is_here() -> None:
    kinds = {"eps", "groups", "padding_mode", "causality", "order"}
    assert {kind for kind in kinds if any(kind in miss for miss in NEAR_MISSES)} == kinds
