"""Shards: one to four ranks give what one device gives, for every VAE; and what happens when a rank does not do so.

The ranks are four processes, joined by gloo, that serve all tests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import STREAMED
from tests.narrow import native
from tests.runtime.shards import work
from tests.runtime.shards.pool import Pool
from vaeport.layers import HEIGHT, WIDTH
from vaeport.runtime.shards import Ranks, clips

MODELS = (
    *("kl", "wan", "wan2_2", "magvit", "hunyuan_video", "gamecraft", "gamecraft_open"),
    *("ltx", "ltx1", "ltx5", "ltx2", "ltx23", "oobleck8"),
)
SMALL = ("kl", "oobleck8")
few = settings(max_examples=2, deadline=None, derandomize=True, database=None)
some = settings(max_examples=6, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(4) as pool:
        yield pool


@st.composite
def runs(draw: st.DrawFn, name: str) -> tuple[int, tuple[int, ...], int | None, int]:
    """Ranks, the shape of a latent, the axis, and from how many outputs on a layer works while halos are under way."""
    ranks = draw(st.integers(2, 4))
    contract = native(name).contract
    overlap = draw(st.sampled_from((1, 3, 10**6)))
    if contract.modality == "audio":
        return ranks, (1, contract.latent_channels, draw(st.integers(ranks, 9))), None, overlap
    axis = draw(st.sampled_from((HEIGHT, WIDTH)))
    sizes = [draw(st.integers(2, 3)), draw(st.integers(2, 3))]
    sizes[axis] = draw(st.integers(ranks, 6))
    frames = (draw(st.integers(1, 3)),) if contract.modality == "video" else ()
    return ranks, (draw(st.integers(1, 2)), contract.latent_channels, *frames, *sizes), axis, overlap


def assert_equal(found: list[tuple[float, float]]) -> None:
    assert found[0][1] > 1e-2, "a whole of zeros shows nothing"
    assert max(error for error, _ in found) <= STREAMED


@pytest.mark.parametrize("name", MODELS)
def test_decoded_in_shards_equals_the_whole(pool: Pool, name: str) -> None:
    @(some if name in SMALL else few)
    @given(runs(name), st.integers(0, 99))
    def equal(run: tuple[int, tuple[int, ...], int | None, int], seed: int) -> None:
        ranks, shape, axis, overlap = run
        assert_equal(pool.values(work.decode, ranks, name, shape, axis, seed, overlap=overlap))

    equal()


@pytest.mark.parametrize("name", MODELS)
def test_encoded_in_shards_equals_the_whole(pool: Pool, name: str) -> None:
    rules = native(name).contract.axes

    @(some if name in SMALL else few)
    @given(runs(name), st.data())
    def equal(run: tuple[int, tuple[int, ...], int | None, int], data: st.DataObject) -> None:
        ranks, latent, axis, overlap = run
        contract = native(name).contract
        over = [data.draw(st.integers(0, rule.multiple - 1)) if rule.crops else 0 for rule in rules]
        shape = [n + extra for n, extra in zip(contract.decoded_shape(latent)[2:], over, strict=True)]
        channels = contract.channels
        assert_equal(pool.values(work.encode, ranks, name, (latent[0], channels, *shape), axis, 0, overlap=overlap))

    equal()


@pytest.mark.parametrize("name", ["kl", "wan"])
def test_one_rank_runs_whole(pool: Pool, name: str) -> None:
    shape = (1, 4, 3, 2, 2) if name == "wan" else (1, 4, 3, 2)
    assert_equal(pool.values(work.decode, 1, name, shape, None, 0))


@pytest.mark.parametrize("kind", work.LAYERS)
def test_a_layer_whose_reach_is_longer_than_a_stripe(pool: Pool, kind: str) -> None:
    for ranks in (2, 3, 4):
        for n in (13, 26):
            for overlap in (1, 100):
                assert_equal(pool.values(work.layer, ranks, kind, n, overlap=overlap))


def test_a_stripe_too_short_to_be_mirrored(pool: Pool) -> None:
    """Of five positions the second of four ranks owns one, whose padded output depends on one alone."""
    assert_equal(pool.values(work.layer, 4, "mirrored", 5))
    assert_equal(pool.values(work.layer, 4, "edge", 5))


@pytest.mark.parametrize("kind", work.VIDEO)
@some
@given(
    ranks=st.integers(2, 4),
    rows=st.integers(4, 12),
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1),
    overlap=st.sampled_from((1, 100)),
)
def test_shards_stream_in_time(pool: Pool, kind: str, ranks: int, rows: int, sizes: list[int], overlap: int) -> None:
    assert_equal(pool.values(work.in_time, ranks, kind, rows, tuple(sizes), overlap=overlap))


def test_every_part_is_handed_over_as_soon_as_it_is_finished(pool: Pool) -> None:
    for gather, shapes in (("none", [(1, 3, 9, 24, 24), (1, 3, 9, 16, 24)]), ("rank0", [(1, 3, 9, 40, 24), None])):
        found = pool.values(work.kept, 2, gather)
        assert [shape for _, shape in found] == (shapes[::-1] if gather == "none" else shapes)
        starts = (0, 16)
        assert [places for places, _ in found] == [[(r, HEIGHT, starts[r], t) for t in (0, 1, 5)] for r in (0, 1)]


@pytest.mark.parametrize("name", ["kl", "wan", "hunyuan_video", "ltx1", "ltx2", "oobleck8"])
def test_a_plan_is_carried_out_on_all_ranks(pool: Pool, name: str) -> None:
    """On every rank the whole, as one rank gives it; Wan, which always runs in pieces, streams within its stripe."""
    contract = native(name).contract
    shape = (1, contract.latent_channels, *((7,) if name == "oobleck8" else (3, 4, 3)[-len(contract.axes) :]))
    for decoded, encoded, why in pool.values(work.planned, 3, name, shape, "1GiB"):
        assert max(decoded, encoded) <= STREAMED
        assert "pieces" in why or name != "wan", why


def test_a_budget_too_small_for_the_ranks(pool: Pool) -> None:
    """All say so, and the ranks go on to serve."""
    for rank, reply in enumerate(pool.run(work.planned, 2, "kl", (1, 4, 4, 4), "1KiB")):
        assert reply.error == "InputError"
        assert "no plan fits into this budget" in reply.message
        assert rank == 0 or "rank 0 made no plan" in reply.message
    assert_equal(pool.values(work.decode, 2, "kl", (1, 4, 4, 4), None, 0))


def test_more_ranks_than_latents(pool: Pool) -> None:
    for reply in pool.run(work.decode, 4, "kl", (1, 4, 3, 9), HEIGHT, 0):
        assert reply.error == "InputError"
        assert "at most 3 ranks" in reply.message
        assert "found: 4" in reply.message


def test_what_runs_whole_only_is_refused(pool: Pool) -> None:
    for reply in pool.run(work.halving, 2):
        assert reply.error == "InputError"
        assert "Halving runs whole only" in reply.message


@pytest.mark.parametrize(
    ("shapes", "axes", "said"),
    [
        ({1: (1, 4, 8, 9)}, {}, "the ranks do not agree: shape"),
        ({}, {2: WIDTH}, "the ranks do not agree: axis"),
        ({0: (1, 5, 8, 8)}, {}, "AutoencoderKL takes B C H W"),
    ],
)
def test_ranks_that_are_called_differently(
    pool: Pool, shapes: dict[int, tuple[int, ...]], axes: dict[int, int], said: str
) -> None:
    for reply in pool.run(work.alike, 3, shapes, axes):
        assert reply.error == "InputError"
        assert said in reply.message
        assert f"rank {next(iter({**shapes, **axes}))}" in reply.message or "takes" in reply.message


def test_clips_are_shared_out() -> None:
    class Rank(Ranks):
        def __init__(self, rank: int, size: int) -> None:
            self.rank, self.size = rank, size

    for size in (1, 2, 3, 5):
        for count in (0, 2, 7):
            found = [clips(Rank(rank, size), count) for rank in range(size)]
            assert [i for part in found for i in part] == list(range(count))
            assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(
    ("how", "who", "said", "end"),
    [
        ("fails", 0, "rank 0 failed: OSError: the disk is full", "OSError"),
        ("dies", 2, "rank 2 does not answer", "gone"),
        ("stops", 1, "rank 1 gave no sign of life for 3 s", None),
    ],
)
def test_a_rank_that_does_not_do_its_part_stops_all(
    tmp_path: Path, how: str, who: int, said: str, end: str | None
) -> None:
    """Within seconds and with one message; what was handed over stays."""
    with Pool(4) as pool:
        pool.values(work.noted, 4)
        started = time.monotonic()
        pool.start(work.broken, 4, who, how, tmp_path, patience=3.0)
        for reply in [pool.reply(rank) for rank in range(4) if rank != who]:
            assert reply.error == "BlockedError"
            assert said in reply.message
        assert time.monotonic() - started < 20
        assert end is None or pool.reply(who).error == end
    assert (tmp_path / f"{who}-0").exists()
