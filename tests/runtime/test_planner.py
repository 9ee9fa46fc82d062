"""Plans: they keep their budget, say what they take, and give the whole."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.layers.laws import STREAMED, difference
from tests.narrow import media, native
from vaeport.errors import InputError
from vaeport.layers import WIDTH, Chain, Layer
from vaeport.layers.layer import Interval
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.models.oobleck import Oobleck
from vaeport.models.wan import Wan
from vaeport.runtime.passes import Passes
from vaeport.runtime.plan import size
from vaeport.runtime.planner import Planner, free_memory
from vaeport.runtime.profile import Kernel, Profile
from vaeport.runtime.rehearsal import Rehearsal
from vaeport.vae import VAE

Half = Literal["encoder", "decoder"]
MIB, GIB = 2**20, 2**30


class Fast(Profile):
    """A device of round numbers, so that a plan depends on nothing that was measured."""

    def measure(self, kernels: set[Kernel], device: torch.device, dtype: torch.dtype) -> None:
        self.rate |= dict.fromkeys(kernels, 1e12)


def planner(name: str, half: Half, shape: tuple[int, ...], **options: Any) -> Planner:
    return Planner(native(name), half, shape, profile=Fast(), **options)


SHAPES: dict[tuple[str, Half], tuple[int, ...]] = {
    ("kl", "decoder"): (1, 4, 40, 16),
    ("kl", "encoder"): (1, 3, 320, 128),
    ("hunyuan_video", "decoder"): (1, 4, 4, 16, 6),
    ("hunyuan_video", "encoder"): (1, 3, 13, 128, 48),
    ("wan", "decoder"): (1, 4, 3, 24, 4),
    ("wan", "encoder"): (1, 3, 9, 192, 32),
    ("ltx5", "decoder"): (1, 4, 24, 2, 1),
    ("oobleck8", "decoder"): (1, 8, 600),
}


@pytest.mark.parametrize(
    ("name", "half"), [pytest.param(*key, marks=[pytest.mark.full] if key[1] == "encoder" else []) for key in SHAPES]
)
def test_a_plan_keeps_its_budget_and_gives_the_whole(name: str, half: Half) -> None:
    """What it holds in a real run is what was foretold, to a twentieth."""
    shape = SHAPES[name, half]
    plans = planner(name, half, shape)
    x = media(name, shape)
    layer = native(name).decoder_at() if half == "decoder" else native(name).encoder
    whole, kinds = layer(x), set()
    for share in (1.5, 0.85, 0.4):
        budget = int(share * plans.whole.peak)
        plan = plans.within(budget)
        if plan is None:
            continue
        kinds.add(plan.kind)
        assert plan.cost.peak <= budget
        with torch.no_grad(), Rehearsal(Profile(), "cpu") as held:
            y = Passes(plan.steps(layer), x, plan.axis).run(plan.passes)
        assert held.peak == pytest.approx(plan.cost.peak, rel=0.05)
        assert difference(y, whole) <= STREAMED
    assert kinds - {"whole"}, "nothing was cut"


def full(model: type[VAE], variant: str) -> VAE:
    with torch.device("meta"):
        return model(model.variants[variant]).bfloat16()


def test_the_cheapest_that_fits_is_chosen() -> None:
    """FLUX at 2048 x 2048: one piece, then passes without repeated work, then with it; more memory is never slower."""
    plans = Planner(full(AutoencoderKL, "flux1"), "decoder", (1, 16, 256, 256), profile=Fast())
    found = [plans.plan(int(gib * GIB)) for gib in (12, 4, 2)]
    assert [plan.kind for plan in found] == ["whole", "bands", "bands"]
    assert [plan.cost.peak <= gib * GIB for plan, gib in zip(found, (12, 4, 2), strict=True)] == [True] * 3
    times = [plan.cost.seconds for plan in found]
    assert times == sorted(times)
    assert found[1].relative < 1.1 < found[2].relative


def test_a_stream_is_flat() -> None:
    """Ten minutes take what one minute takes, and the result."""
    vae = full(Oobleck, "stable-audio-open-1.0")
    costs = [Planner(vae, "decoder", (1, 64, n), profile=Fast(), out_given=True).plan(GIB).cost for n in (1292, 12920)]
    assert costs[1].peak <= 1.05 * costs[0].peak
    assert costs[1].seconds == pytest.approx(10 * costs[0].seconds, rel=0.1)


def test_large_frames_run_in_windows_too() -> None:
    plans = Planner(full(Wan, "wan2.1"), "decoder", (1, 16, 6, 90, 160), profile=Fast(), out_given=True)
    streamed, windowed = plans.plan(12 * GIB), plans.plan(4 * GIB)
    assert (streamed.kind, windowed.kind) == ("stream", "bands")
    assert windowed.cost.peak <= 4 * GIB
    assert "windows of rows" in windowed.why


def test_a_budget_too_small_names_the_least() -> None:
    plans = planner("kl", "decoder", (1, 4, 24, 16))
    with pytest.raises(InputError, match="no plan fits into this budget") as refused:
        plans.plan(MIB // 100)
    assert str(refused.value.expected).startswith("at least ")
    assert refused.value.found == "0.0 MiB"
    assert plans.within(plans.least(MIB // 100)) is not None


@pytest.mark.parametrize(
    ("name", "half", "shape", "words"),
    [
        ("kl", "decoder", (1, 3, 8, 8), "takes another shape"),
        ("wan", "decoder", (1, 4, 8, 8), "takes another shape"),
        ("wan", "encoder", (1, 3, 1, 4, 16), "too short"),
        ("kl", "decoder", (1, 4, 0, 8), "too short"),
    ],
)
def test_shapes_that_are_refused(name: str, half: Half, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        planner(name, half, shape)


def test_flags_say_what_may_be_cut() -> None:
    shape = SHAPES["kl", "decoder"]
    plans = planner("kl", "decoder", shape, may_cut=("time",))
    assert plans.plan(GIB).kind == "whole"
    assert plans.within(plans.whole.peak // 2) is None
    plans = planner("ltx5", "decoder", (1, 4, 6, 4, 2), may_cut=("space",))
    assert plans.plan(GIB).kind == "whole"
    assert {plan.passes[0].pieces for plan in plans.candidates(0)} == {(6, 6)}


class WholeOnly(Layer):
    """Sees all of every axis and takes no notes."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean()

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        return None


def test_what_runs_whole_only_is_planned_whole() -> None:
    class Odd(AutoencoderKL):
        @staticmethod
        def decoder_of(arch: Any) -> Layer:
            return Chain(odd=WholeOnly(), rest=AutoencoderKL.decoder_of(arch))

    plans = Planner(Odd(native("kl").arch), "decoder", (1, 4, 40, 16), profile=Fast())
    plan = plans.plan(GIB)
    assert (plan.kind, len(plan.passes)) == ("whole", 1)
    assert "since odd runs whole only" in plan.why
    with pytest.raises(InputError, match="no plan fits") as refused:
        plans.plan(plans.whole.peak // 2)
    assert refused.value.expected == f"at least {size(plans.whole.peak)} beside the weights"


@pytest.mark.parametrize("name", ["kl", "wan", "hunyuan_video"])
def test_ranks_share_memory_and_time(name: str) -> None:
    shape = (1, 4, 16, 32) if name == "kl" else (1, 4, 3, 16, 32)
    alone, shared = planner(name, "decoder", shape), planner(name, "decoder", shape, ranks=2)
    plan = shared.plan(GIB)
    assert (plan.ranks, plan.shared, shared.x.shape[WIDTH]) == (2, WIDTH, 16)
    one = alone.plan(GIB).cost
    assert 0.5 < plan.cost.peak / one.peak < 0.75
    assert 0.5 < plan.cost.seconds / one.seconds < 0.75
    assert "on each of 2 ranks" in plan.lines()[0]


def test_barriers_are_named_with_their_share() -> None:
    plan = Planner(full(AutoencoderKL, "flux1"), "decoder", (1, 16, 512, 512), profile=Fast()).plan(64 * GIB)
    dearest = max(plan.barriers, key=lambda stop: stop.share)
    assert (dearest.name, dearest.kind) == ("middle.attention.main.attention", "SelfAttention")
    assert dearest.notes == 2 * 512 * 512 * 512 * 2  # keys and values
    # 4 N^2 C of attention beside convolutions of 9 pairs of channels a pixel
    assert 0.4 < dearest.share < 0.7


def test_attention_over_frames_is_a_step_of_passes() -> None:
    plans = Planner(full(HunyuanVideo, "hunyuan_video"), "decoder", (1, 16, 5, 45, 80), profile=Fast())
    plan = plans.plan(int(0.2 * plans.whole.peak))
    assert plan.cost.peak <= 0.2 * plans.whole.peak
    assert "FrameCausalAttention" in {stop.kind for stop in plan.barriers}


def test_a_plan_tells_itself() -> None:
    plan = planner("kl", "decoder", (1, 4, 24, 16)).plan(GIB)
    found = plan.to_json()
    assert (found["kind"], found["exact"], found["peak_bytes"]) == ("whole", True, plan.cost.peak)
    assert "peak" in plan.lines()[1]


def test_free_memory() -> None:
    assert 2**20 < free_memory(torch.device("cpu")) < 2**45


def test_a_profile_measures_what_it_meets() -> None:
    profile, device = Profile(), torch.device("cpu")
    shapes = [((8, 4, 3, 3), (1, 1), (1, 1), (1, 1), False), ((8, 4, 7), (1,), (3,), (1,), False)]
    shapes += [((4, 8, 4), (2,), (1,), (1,), True)]
    kernels = {Kernel("attention", (16,)), Kernel("matmul"), *(Kernel("convolution", shape) for shape in shapes)}
    profile.measure(kernels, device, torch.float32)
    assert profile.rate.keys() == profile.beside.keys() == kernels
    assert all(1e6 < rate < 1e15 for rate in profile.rate.values())


def test_a_rehearsal_holds_what_is_alive() -> None:
    with torch.no_grad(), Rehearsal(Profile()) as counted:
        x = torch.empty(2**20, device="meta")
        y = x * 2
        view = y[:5]
        del x, y
        z = torch.empty(2**18, device="meta")
        assert counted.live == 5 * 2**20  # the view keeps all of y
        del view, z
    assert (counted.live, counted.peak) == (0, 8 * 2**20)
