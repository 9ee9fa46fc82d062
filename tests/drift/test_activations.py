"""Runs are recorded: every kind of output, in the order of execution, without a trace left in the modules."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from tests.narrow import media, native, shapes
from vaeport.drift.activations import record, tensors_in, tracing
from vaeport.drift.fastvideo_trace import Record
from vaeport.errors import InputError

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Held:
    hidden: Tensor
    inner: Any = None


class Gives(nn.Module):
    """Gives what a function makes of its input."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


class Posterior:
    def __init__(self, x: Tensor) -> None:
        self.mean, self.std, self.deterministic, self.parent = x, x + 1, False, self


@pytest.mark.parametrize(
    ("make", "places"),
    [
        (lambda x: x, ["out"]),
        (lambda x: (x, [x, 3]), ["out[0]", "out[1][0]"]),
        (lambda x: {"a": x, "b": {"c": x}}, ["out.a", "out.b.c"]),
        (lambda x: Pair(x, x), ["out[0]", "out[1]"]),
        (lambda x: Held(x, Held(x)), ["out.hidden", "out.inner.hidden"]),
        (lambda x: Held(x, Posterior(x)), ["out.hidden", "out.inner.mean", "out.inner.std"]),
        (lambda x: (True, None, "text"), []),
    ],
)
def test_tensors_of_every_output_are_named(make: Any, places: list[str]) -> None:
    model = nn.Sequential(Gives(make))
    found = record(model, lambda: [model(torch.ones(2, 3)), None][1])
    assert [(one.module, one.tensor) for one in found] == [("0", place) for place in places]


def test_an_output_that_holds_itself_ends() -> None:
    held: list[Any] = [torch.ones(1)]
    held.append(held)
    assert [place for place, _ in tensors_in(held)] == ["out[0]"]


def test_statistics_are_those_of_the_tensor() -> None:
    x = torch.tensor([[-3.0, 1.0, 2.0, 4.0]], dtype=torch.bfloat16)
    (one,) = record(nn.Module(), lambda: x, step=7)
    assert one == Record(
        "",
        "out",
        7,
        {"abs_mean": 2.5, "sum": 4.0, "min": -3.0, "max": 4.0, "mean": 1.0, "std": x.float().std().item()},
        (1, 4),
        "torch.bfloat16",
    )


def test_a_statistic_that_cannot_be_had_says_why() -> None:
    (one,) = record(nn.Module(), lambda: torch.ones(1), stats=["std"])
    assert math.isnan(one.stats["std"])
    (one,) = record(nn.Module(), lambda: torch.ones(0), stats=["sum", "max"])
    assert one.stats == {"sum": 0.0}
    assert one.failed["max"].startswith("<error: ")


def test_modules_stand_in_the_order_in_which_they_finish_and_no_hook_stays() -> None:
    vae = native("kl")
    found = record(vae.encoder, lambda: vae.encode(media("kl").double()), layers=r"^\w+$")
    order = [one.module for one in found]
    assert order[-1] == ""
    assert [name for name in order if name] == [name for name, _ in vae.encoder.named_children()]
    assert not any(module._forward_hooks for module in vae.modules())
    with pytest.raises(ZeroDivisionError):
        record(vae.encoder, lambda: 1 / 0)
    assert not any(module._forward_hooks for module in vae.modules())


def test_outputs_of_diffusers_are_seen() -> None:
    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    assert shapes(vae)
    found = record(vae, lambda: vae.encode(torch.zeros(1, 3, 8, 8)), layers="^encoder$")
    places = {(one.module, one.tensor): one.shape for one in found}
    assert places["encoder", "out"] == (1, 8, 8, 8)
    assert places["", "out.latent_dist.mean"] == (1, 4, 8, 8)


def test_a_run_that_breaks_off_leaves_what_it_had() -> None:
    model = nn.Sequential(nn.Identity(), Gives(lambda x: 1 / 0))
    found: list[Record] = []
    with pytest.raises(ZeroDivisionError), tracing(model, found.append):
        model(torch.ones(1))
    assert [one.module for one in found] == ["0"]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("options", [{"stats": ["norm"]}, {"layers": "("}])
def test_what_is_asked_for_must_exist(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        record(nn.Identity(), lambda: None, **options)
