"""Operators against formulas written another way, what torch requires of them, and Triton's bodies interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.layers.laws import difference, normal
from vaeport.kernels import bodies, ops, selfcheck
from vaeport.kernels.conv import phases, volume
from vaeport.kernels.ops import OPS
from vaeport.layers import Conv, NearestUpsample

CASES = list(selfcheck.cases(torch.float64, "cpu", 3))
NAMES = sorted({name for name, _, _ in CASES})
close = 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_what_torch_requires(name: str) -> None:
    """Schema, no output that is an input, fake shapes and strides as the real ones."""
    for kind, what, given in [case for case in CASES if case[0] == name][:3]:
        tests = ("test_schema", "test_faketensor", "test_autograd_registration")
        torch.library.opcheck(getattr(OPS, kind).default, given, test_utils=tests)
        assert what is not None


def test_every_operator_has_cases_and_a_body() -> None:
    assert set(NAMES) == {*bodies.BODIES} - {"affine"}
    schemas = {s.name.partition("::")[2] for s in torch._C._jit_get_all_schemas() if s.name.startswith("vaeport::")}
    assert schemas == {*bodies.BODIES}


def test_a_convolution_reads_the_past_and_adds() -> None:
    conv = Conv(3, 8, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1))).double().requires_grad_(False)
    x, addend = normal(2, 3, 5, 4, 6), normal(2, 8, 3, 4, 6, seed=1)
    none = x.new_empty(0)
    rest = (none, None, addend, [0, 1, 1], [0, 1, 1], [1, 1, 1], 1, False, [1, 1, 1], "groups")
    y = OPS.conv(x[:, :, 2:], x[:, :, :2], conv.weight, conv.bias, *rest)
    assert difference(y, conv(x)[:, :, 2:] + addend) <= close


@pytest.mark.parametrize("frames", [False, True])
def test_sums_of_weights_see_what_repeated_positions_show(frames: bool) -> None:
    """Each of the outputs of a position, from the weights that are folded for it."""
    weight, x = normal(4, 3, 3 if frames else 1, 3, 3), normal(1, 3, 4, 5, 6, seed=1)
    whole = ops.upsampled_conv(x, weight, None, x.new_empty(0), None, frames)
    edged = F.pad(x, (1, 1, 1, 1, 1, 0), mode="replicate") if frames else F.pad(x, (1, 1, 1, 1))
    parts = phases(weight, frames)
    assert len(parts) == (8 if frames else 4)
    for i, part in enumerate(parts):
        time, a, b = i // 4, i // 2 % 2, i % 2
        y = F.conv3d(edged, part)[..., a : a + 5, b : b + 6]
        shown = whole[..., a::2, b::2]
        if frames:  # the second of each pair but the first, which is alone
            y, shown = (y[:, :, 1:], shown[:, :, 1::2]) if time else (y, shown[:, :, ::2])
        assert difference(y, shown) <= close


def test_group_norm_of_merged_moments() -> None:
    x, weight, bias = normal(2, 64, 3, 4, 5) + 100, normal(64, seed=1), normal(64, seed=2)
    notes = torch.cat([OPS.moments(part, 32) for part in x.split((1, 3), 3)], 1)
    y = OPS.scaled(x, *OPS.affine(notes, weight, bias, 1e-6), True, [], "replicate")
    assert difference(y, F.silu(F.group_norm(x, 32, weight, bias, 1e-6))) <= 1e-10


def test_positions_are_repeated_as_the_layers_do() -> None:
    x = normal(1, 4, 3, 2, 3)
    y = OPS.repeated(x, [2, 2, 2], True, [0, 0, 1, 1, 0, 2], "replicate")
    one, rest = NearestUpsample((1, 2, 2))(x[:, :, :1]), NearestUpsample((2, 2, 2))(x[:, :, 1:])
    assert torch.equal(y, F.pad(torch.cat((one, rest), 2), (0, 2, 1, 1, 0, 0), mode="replicate"))


def test_gradients_go_through_the_definition() -> None:
    x, gain = normal(1, 8, 2, 3, 4).requires_grad_(), normal(8, seed=1).requires_grad_()

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        y: Tensor = OPS.unit(x, gain, 1.0, 0.0, 1e-24, True, [1, 1, 1, 1], "reflect")
        return y

    assert torch.autograd.gradcheck(norm, (x, gain))


def test_a_kernel_that_is_wrong_or_fails_gives_way_to_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so, once."""
    x = normal(1, 8, 50)
    given = (x, normal(8, seed=1), normal(8, seed=2))
    wanted = ops.snake(*given)

    def wrong(*args: Any) -> Tensor:
        return 1.01 * ops.snake(*args)

    def failing(*args: Any) -> Tensor:
        raise RuntimeError("no such device function\nand more")

    for body, says in ((wrong, "gives wrong results"), (failing, "RuntimeError: no such device function")):
        monkeypatch.setattr(bodies, "_TRUSTED", {})
        guarded = bodies._guarded("snake", body)
        monkeypatch.setattr(bodies.selfcheck, "error", lambda name, case, body=body: off(body, case))
        with pytest.warns(RuntimeWarning, match=says):
            assert torch.equal(guarded(*given), wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(guarded(*given), wanted)


def off(body: Callable[..., Tensor], case: tuple[Any, ...]) -> float:
    wanted = ops.snake(*case)
    return float((body(*case) - wanted).norm() / wanted.norm())


def test_an_error_that_is_not_a_number_is_no_pass() -> None:
    with pytest.raises(Exception, match="wrong results"):
        bodies._require("a norm", float("nan"), torch.bfloat16)


INTERPRETED = """
import torch
from vaeport.kernels import bodies, ops, selfcheck
seen = set()
for name, what, given in selfcheck.cases(torch.float32, "cpu", 3):
    if name not in bodies._BY_VARIANT:
        found, wanted = bodies._BODIES[name](*given), getattr(ops, name)(*(selfcheck._wide(a) for a in given))
        if name == "moments":
            weight = torch.randn(given[0].shape[1])
            found = torch.stack(bodies._BODIES["affine"](found, weight, weight, 1e-6))
            wanted = torch.stack(ops.affine(wanted, weight.double(), weight.double(), 1e-6))
            seen.add("affine")
        assert found.shape == wanted.shape, (name, what)
        error = float((found.double() - wanted).norm() / wanted.norm())
        assert error < selfcheck.LARGEST[torch.float32], (name, what, error)
        seen.add(name)
print(sorted(seen))
"""


def test_triton_bodies_interpreted() -> None:
    pytest.importorskip("triton", reason="PyTorch for CPUs comes without it")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(sorted({*bodies.BODIES} - {*bodies._BY_VARIANT}))


def test_a_weight_has_three_axes() -> None:
    assert volume(normal(5, 4, 3, 3)).shape == (5, 4, 1, 3, 3)
    assert volume(normal(5, 4, 7)).shape == (5, 4, 1, 1, 7)
