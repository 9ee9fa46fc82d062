"""Traces side by side: the first module that differs, joined calls, and nothing called equal that was not compared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vaeport.drift.activations import record
from vaeport.drift.fastvideo_trace import Record
from vaeport.drift.trace_compare import compare, differing, head, told
from vaeport.errors import ProofError


def net(eps: float = 1e-5) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, eps=eps), nn.Linear(4, 2)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def x(n: int = 6) -> Tensor:
    return torch.randn(2, n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


PAIRS = {"0": "0", "1": "1", "2": "2"}


def traced(model: nn.Module, *inputs: Tensor) -> list[Record]:
    return record(model, lambda: [model(one) for one in inputs], layers="^[0-9]", accumulate=torch.float64)


def test_the_first_module_that_differs_is_told_first() -> None:
    rows = compare(traced(net(1e-2), x()), traced(net(), x()), PAIRS)
    assert [row.native for row in rows] == ["0", "1", "2"]
    assert rows[0].difference == 0.0
    assert rows[1].differs(1e-4)
    lines = told(rows)
    assert lines[0].startswith("first difference: 1 / 1 out")
    assert [line[0] for line in lines[1:]] == [" ", "!", "!"]


def test_rows_stand_in_the_order_of_execution_whatever_the_pairs_say() -> None:
    rows = compare(traced(net(), x()), traced(net(), x()), {"2": "2", "0": "0", "1": "1"})
    assert [row.native for row in rows] == ["0", "1", "2"]
    assert told(rows)[0].startswith("no difference")
    twice = compare(traced(net(), x(), x(3)), traced(net(), x(), x(3)), PAIRS)
    assert [(row.native, row.call) for row in twice] == [(name, call) for call in (0, 1) for name in "012"]


def test_calls_of_a_reference_that_streams_are_joined() -> None:
    whole = x(7)
    rows = compare(traced(net(), whole), traced(net(), *whole.split([1, 4, 2], 1)), PAIRS)
    assert all(row.notes == ("1 calls here, 3 there: joined",) for row in rows)
    assert all(set(row.stats) == {"abs_mean", "sum", "min", "max", "mean", "std"} for row in rows)
    assert max(row.difference for row in rows) < 1e-12
    off = compare(traced(net(1e-2), whole), traced(net(), *whole.split([1, 4, 2], 1)), PAIRS)
    assert [row.differs(1e-4) for row in off] == [False, True, True]
    lost = compare(traced(net(), whole), traced(net(), *whole.split([1, 4, 2], 1)[:2]), PAIRS)
    assert all(row.difference == math.inf for row in lost)


def test_joined_calls_stand_where_the_last_one_finished() -> None:
    a, b = Record("a", stats={"sum": 1.0}, shape=(1,)), Record("b", stats={"sum": 2.0}, shape=(1,))
    whole = Record("a", stats={"sum": 2.0}, shape=(2,))
    assert [row.native for row in compare([a, b, a], [whole, b], {"a": "a", "b": "b"})] == ["b", "a"]


def test_a_permuted_channel_is_not_seen() -> None:
    """What the module's docstring says."""
    a, b = (record(nn.Module(), lambda y=y: y) for y in (x(), x().flip(-1).contiguous()))
    assert compare(a, b, {"": ""})[0].difference < 1e-6


def one(**stats: float) -> list[Record]:
    return [Record("m", "out", None, stats, (2, 4))]


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        ({"mean": 1e-9, "abs_mean": 1.0}, {"mean": -1e-9, "abs_mean": 1.0}, False),  # rounding of a mean near 0
        ({"mean": 1e-9}, {"mean": -1e-9}, True),
        ({"sum": 1e-7, "abs_mean": 1.0}, {"sum": 0.0, "abs_mean": 1.0}, False),
        ({"min": 1e-9, "max": 5.0}, {"min": 0.0, "max": 5.0}, False),
        ({"max": math.inf}, {"max": math.inf}, False),
        ({"max": math.inf}, {"max": 5.0}, True),
        ({"max": math.nan}, {"max": 5.0}, True),
        ({"max": math.nan}, {"max": math.nan}, True),  # nothing was compared
        ({"max": 1.0}, {"min": 1.0}, True),
    ],
)
def test_scales_and_numbers_that_are_none(ours: dict[str, float], theirs: dict[str, float], differs: bool) -> None:
    (row,) = compare(one(**ours), one(**theirs), {"m": "m"})
    assert row.differs(1e-4) is differs


def test_outputs_of_another_name_size_shape_and_type() -> None:
    here = [Record("m", "out", None, {"max": 1.0}, (2, 4), "torch.float32")]
    (row,) = compare(here, [Record("n", "out.sample", 0, {"max": 1.0}, (4, 2), "torch.bfloat16")], {"m": "n"})
    assert not row.differs(0)
    assert row.notes == ("shape (2, 4) against (4, 2)", "torch.float32 against torch.bfloat16")
    (row,) = compare(here, [Record("n", "out", None, {"max": 1.0}, (2, 5))], {"m": "n"})
    assert row.difference == math.inf
    assert row.notes[0] == "8 values against 10"


def test_what_one_side_lacks_is_a_difference_and_comes_last() -> None:
    rows = compare(traced(net(), x()), traced(net(), x()), {"9": "0", "0": "8", "7": "7", "1": "1"})
    assert [(row.native, row.notes) for row in rows] == [
        ("1", ()),
        ("9", ("not in the native trace",)),
        ("0", ("not in the reference trace",)),
        ("7", ("not in the native and reference trace",)),
    ]
    assert told(rows)[0].startswith("first difference: 9 / 0 out: not in the native trace")


def test_modules_within_one_that_is_the_same_are_only_cut_otherwise() -> None:
    paths = ("a", "a.b", "a.b.c", "ab", "d.e", "d")
    pairs = dict(zip(paths, paths, strict=True))
    right = [Record(path, stats={"max": 1.0}) for path in paths]
    off = [
        Record(one.module, stats={"max": 2.0 if one.module in ("a.b", "a.b.c", "ab", "d.e") else 1.0}) for one in right
    ]
    rows = compare(off, right, pairs)
    assert [row.native for row in differing(rows, 1e-6)] == ["ab"]
    verdict, *table = told(rows, 1e-6)
    assert verdict.startswith("first difference: ab / ab out")
    assert [line[0] for line in table] == [" ", "~", "~", "!", "~", " "]
    *_, last = head(rows, 1e-6)
    assert last == "2 of 6 rows are the same within 1e-06; 3 lie in modules that are the same, which are cut otherwise"


def test_the_head_of_a_long_table() -> None:
    paths = [f"m{i}" for i in range(20)]
    rows = compare(
        [Record(path, stats={"max": 2.0}) for path in paths],
        [Record(path, stats={"max": 1.0}) for path in paths],
        dict(zip(paths, paths, strict=True)),
    )
    verdict, *table, more, same = head(rows)
    assert (len(table), more, same) == (12, "and 8 more that differ", "0 of 20 rows are the same within 0.0001")
    assert verdict.removeprefix("first difference: ") == table[0].removeprefix("! ")


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ProofError, match="nothing to compare"):
        compare([], one(max=1.0), {"m": "m"})
    with pytest.raises(ProofError, match="no aligned modules"):
        compare(one(max=1.0), one(max=1.0), {})


def test_nan_in_one_of_several_calls_is_kept() -> None:
    calls = [Record("m", stats={"min": value}, shape=(3,)) for value in (1.0, math.nan)]
    (row,) = compare([Record("m", stats={"min": 1.0}, shape=(6,))], calls, {"m": "m"})
    assert row.difference == math.inf
