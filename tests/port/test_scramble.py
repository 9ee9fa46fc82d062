"""A scrambled module computes what the reference does, and nothing else of it can be recognised."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from torch import nn

from tests.port import scrambled
from tests.port.compared import CASES, CONFIGS, EQUAL, NAMES, difference, outputs, segments, shapes
from tests.port.scramble import Scrambled, scramble, unscrambled
from vaeport.proof.draw import draw_state

each = pytest.mark.parametrize("case", CASES)
both = pytest.mark.parametrize("hard", [False, True])


@each
@both
@pytest.mark.parametrize("seed", [0, 1])
def test_same_function_under_other_names(case: str, hard: bool, seed: int) -> None:
    name, config = CASES[case]
    reference = scrambled.original(name, seed, **config)
    other, truth = scramble(reference, seed, hard=hard)
    state, theirs = other.state_dict(), reference.state_dict()

    assert difference(outputs(other, name), outputs(reference, name)) <= EQUAL
    assert other.config == reference.config
    assert segments(other).isdisjoint(segments(reference))
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in theirs.values())

    found = unscrambled(state, truth, shapes(reference))
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[key], theirs[key].double()) for key in theirs)
    assert {pair.scrambled for pair in truth} == state.keys()
    rows = {(pair.scrambled, pair.scrambled_rows) for pair in truth}
    assert len(rows) == len(truth), "two of the reference's tensors in one place"


@each
def test_every_weight_is_used(case: str) -> None:
    """Strictly loaded weights give the outputs of the reference that they are from; one less is refused."""
    name, config = CASES[case]
    reference = scrambled.original(name, 0, **config)
    first, _ = scramble(reference, 3, hard=True)
    reference.load_state_dict(draw_state(shapes(reference), 9))
    second, _ = scramble(reference, 3, hard=True)
    expected = outputs(reference, name)
    assert difference(outputs(first, name), expected) > 1e-2
    first.load_state_dict(second.state_dict(), strict=True)
    assert difference(outputs(first, name), expected) <= EQUAL
    assert difference(outputs(copy.deepcopy(first), name), expected) <= EQUAL
    less = dict(second.state_dict())
    less.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        first.load_state_dict(less, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_seed_decides(name: str) -> None:
    config = CONFIGS[name]
    one, same, other = (scrambled.build(name, seed, **config) for seed in (1, 1, 2))
    hard = scrambled.build(name, 1, hard=True, **config)
    assert shapes(one[0]) == shapes(same[0])
    assert list(one[0].state_dict()) == list(same[0].state_dict())
    assert one[1] == same[1]
    assert shapes(one[0]).keys().isdisjoint(shapes(other[0]))
    assert shapes(one[0]).keys().isdisjoint(shapes(hard[0]))


@pytest.mark.parametrize("name", NAMES)
def test_order_and_nesting_are_lost(name: str) -> None:
    reference = scrambled.original(name, 0, **CONFIGS[name])
    theirs = list(shapes(reference))
    for seed in range(3):
        other, truth = scramble(reference, seed)
        keys = list(shapes(other))
        place = {
            theirs.index(pair.original): keys.index(pair.scrambled) for pair in truth if "bias" not in pair.original
        }
        falling = [a > b for a, b in pairwise(place[i] for i in sorted(place))]
        assert sum(falling) > 0.35 * len(falling), "registration follows the reference's order"
        assert sorted(key.count(".") for key in theirs) != sorted(key.count(".") for key in keys)


def test_storage_differs() -> None:
    def kinds(name: str, hard: bool) -> set[tuple[tuple[int, ...], tuple[int, ...], bool, bool]]:
        config = CONFIGS[name]
        before = shapes(scrambled.original(name, 0, **config))
        found = set()
        for seed in range(4):
            module, truth = scrambled.build(name, seed, hard=hard, **config)
            after = shapes(module)
            found |= {
                (
                    before[p.original],
                    after[p.scrambled],
                    p.transposed,
                    p.rows is not None or p.scrambled_rows is not None,
                )
                for p in truth
            }
        return found

    kl, wan, oobleck = (kinds(name, hard=False) for name in NAMES)
    assert {((128, 128), (384, 128, 1), False, True), ((128, 128), (384, 128, 1, 1), False, True)} <= kl
    assert {((64, 64), (64, 64), True, False), ((128, 64, 1, 1), (128, 64), False, False)} & kl
    assert {((96, 32, 1, 1), (32, 32), False, True), ((96, 32, 1, 1), (32, 32), True, True)} <= wan
    assert ((16, 16, 1), (16, 16), False, False) in oobleck
    assert ((1, 16, 1), (1, 16, 1), False, False) in oobleck
    kl, wan, oobleck = (kinds(name, hard=True) for name in NAMES)
    assert ((128, 128), (128, 384), True, True) in kl
    assert ((128,), (128, 1, 1), False, False) in kl
    assert ((32, 1, 1), (32,), False, False) in wan
    assert {((1, 16, 1), (16,), False, False), ((16, 1, 1), (16,), False, False)} <= oobleck


def test_fused_order_comes_from_the_seed() -> None:
    orders = set()
    for seed in range(12):
        _, truth = scrambled.build("kl", seed, **CONFIGS["kl"])
        parts = [p for p in truth if p.scrambled_rows and p.original.startswith("encoder") and "weight" in p.original]
        orders.add(tuple(p.original[-8] for p in sorted(parts, key=lambda p: p.scrambled_rows or ())))
    assert len(orders) >= 4
    assert {"".join(sorted(order)) for order in orders} == {"kqv"}


def test_truth_can_fail() -> None:
    reference = scrambled.original("kl", 0, **CONFIGS["kl"])
    module, truth = scramble(reference, 0)
    found = unscrambled(module.state_dict(), truth[1:], shapes(reference))
    assert found[truth[0].original].isnan().all()


def test_reference_stays_and_truth_is_hidden() -> None:
    reference = scrambled.original("oobleck", 0, **CONFIGS["oobleck"])
    before = {key: value.clone() for key, value in reference.state_dict().items()}
    module, truth = scramble(reference, 0)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(1)
    assert list(reference.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())
    assert not any(isinstance(value, type(truth[0])) for m in module.modules() for value in vars(m).values())
    assert {type(m).__module__.split(".")[0] for m in module.modules()} <= {"tests", "torch"}


def test_new_weight_norm() -> None:
    reference = scrambled.original("oobleck", 0, **CONFIGS["oobleck"])
    expected = outputs(reference, "oobleck")
    for child in [m for m in reference.modules() if hasattr(m, "weight_g")]:
        g, v = child.weight_g.data, child.weight_v.data
        nn.utils.remove_weight_norm(child)
        nn.utils.parametrizations.weight_norm(child)
        child.load_state_dict(
            {"parametrizations.weight.original0": g, "parametrizations.weight.original1": v}, strict=False
        )
    module, truth = scramble(reference, 0)
    assert any(pair.original.endswith("parametrizations.weight.original1") for pair in truth)
    assert difference(outputs(module, "oobleck"), expected) <= EQUAL


def test_unknown_modules_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.ParameterList([nn.Parameter(torch.ones(2))])

    with pytest.raises(TypeError, match="part is a ParameterList"):
        scramble(Odd(), 0)


@pytest.mark.parametrize("name", NAMES)
def test_factories(name: str) -> None:
    """By import path; at published width without memory for weights."""
    factory = resolve_name(f"tests.port.scrambled:{name}")
    narrow = factory(seed=1, **CONFIGS[name])
    assert isinstance(narrow, Scrambled)
    assert shapes(narrow) == shapes(scrambled.build(name, 1, **CONFIGS[name])[0])
    with torch.device("meta"):
        wide, reference = factory(seed=1), scrambled.original(name)
    assert sum(t.numel() for t in wide.parameters()) == sum(t.numel() for t in reference.parameters()) > 8e7


def test_factories_in_another_process() -> None:
    code = (
        "from tests.port.scrambled import oobleck; from tests.port.compared import CONFIGS;"
        "print(*oobleck(5, **CONFIGS['oobleck']).state_dict())"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(scrambled.oobleck(5, **CONFIGS["oobleck"]).state_dict())
