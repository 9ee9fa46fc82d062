"""Threads beside the run: order, bounds, errors as they are, and no thread left whatever happens."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
import torch
from torch import Tensor

from vaeport.errors import MediaError, VaeportError
from vaeport.runtime.finite import NotFiniteError
from vaeport.runtime.overlap import WAITING, Ahead, Behind, handover


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {t for t in threading.enumerate() if t.name.startswith("vaeport")} <= before


def waited(true: Callable[[], bool]) -> bool:
    """Whether it became true within some seconds."""
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()


def failing(error: BaseException, after: int) -> Iterator[int]:
    yield from range(after)
    raise error


class TestAhead:
    """Items made ahead."""

    def test_all_items_in_their_order_from_another_thread(self) -> None:
        makers = set()

        def made() -> Iterator[int]:
            for i in range(100):
                makers.add(threading.current_thread())
                yield i

        with Ahead(made(), 3) as items:
            assert list(items) == list(range(100))
            assert list(items) == []
        assert len(makers) == 1
        assert threading.current_thread() not in makers

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_no_more_than_depth_ahead_and_that_much_without_being_asked(self, depth: int) -> None:
        made: list[int] = []
        with Ahead((made.append(i) or i for i in count()), depth) as items:
            for taken in range(1, 20):
                assert next(items) == taken - 1
                assert waited(lambda n=taken + depth: len(made) >= n)
                time.sleep(0.002)
                assert len(made) == taken + depth

    @pytest.mark.parametrize("error", [MediaError("cut short", where="a.mp4"), KeyError("x"), KeyboardInterrupt()])
    def test_an_error_comes_as_it_is_after_the_items_before_it(self, error: BaseException) -> None:
        with Ahead(failing(error, 3), 2) as items:
            assert [next(items) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(type(error)) as caught:
                next(items)
            assert caught.value is error
            assert list(items) == []

    def test_an_iterable_that_cannot_be_iterated(self) -> None:
        with Ahead(7, 1) as items, pytest.raises(TypeError, match="not iterable"):  # type: ignore[arg-type]
            next(items)

    @pytest.mark.parametrize("taken", [0, 1, 5])
    @pytest.mark.parametrize("depth", [1, 4])
    def test_who_stops_early_ends_the_thread_and_the_generator(self, taken: int, depth: int) -> None:
        ended: list[threading.Thread] = []

        def made() -> Iterator[int]:
            try:
                yield from count()
            finally:
                ended.append(threading.current_thread())

        items = Ahead(made(), depth)
        for _ in range(taken):
            next(items)
        assert waited(lambda: items._made.qsize() == depth)
        items.close()
        items.close()
        assert not items._thread.is_alive()
        assert ended == [items._thread]
        assert list(items) == []

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
    def test_who_fails_ends_the_thread(self, error: type[BaseException]) -> None:
        def consumer() -> None:
            with Ahead(count(), 2) as items:
                for item in items:
                    if item == 3:
                        raise error

        with pytest.raises(error):
            consumer()

    def test_what_an_error_held_is_freed_without_the_garbage_collector(self) -> None:
        class Held:
            pass

        def made() -> Iterator[int]:
            held = Held()
            kept.append(weakref.ref(held))
            yield 1
            raise ValueError

        kept: list[weakref.ref[Held]] = []
        gc.disable()
        try:
            with Ahead(made(), 1) as items, suppress(ValueError):
                list(items)
            assert waited(lambda: kept[0]() is None)
        finally:
            gc.enable()


class TestBehind:
    """Items taken behind."""

    def test_all_items_in_their_order_in_another_thread(self) -> None:
        taken: list[tuple[int, threading.Thread]] = []
        with Behind(lambda i: taken.append((i, threading.current_thread())), 2) as behind:
            for i in range(100):
                behind.put(i)
        assert [i for i, _ in taken] == list(range(100))
        assert {thread for _, thread in taken} == {behind._thread}

    def test_no_more_than_depth_wait(self) -> None:
        go, put = threading.Semaphore(0), []

        def fill() -> None:
            with Behind(lambda _: go.acquire(), 2) as behind:
                for i in range(8):
                    behind.put(i)
                    put.append(i)

        filler = threading.Thread(target=fill)
        filler.start()
        for taken in range(5):  # one is being taken, two wait
            assert waited(lambda n=taken + 3: len(put) >= n)
            time.sleep(0.002)
            assert len(put) == taken + 3
            go.release()
        for _ in range(8):
            go.release()
        filler.join(10)
        assert not filler.is_alive()

    @pytest.mark.parametrize("fails_at", [0, 3, 9])
    @pytest.mark.parametrize("error", [MediaError("the disk is full"), OSError(28, "no room"), KeyboardInterrupt()])
    def test_an_error_comes_as_it_is_and_nothing_is_taken_after_it(self, fails_at: int, error: BaseException) -> None:
        taken: list[int] = []

        def take(i: int) -> None:
            if i == fails_at:
                raise error
            taken.append(i)

        def run() -> None:
            with Behind(take, 2) as behind:
                for i in range(10):
                    behind.put(i)

        with pytest.raises(type(error)) as caught:
            run()
        assert caught.value is error
        assert taken == list(range(fails_at))

    def test_who_ignores_the_error_of_a_put_is_not_told_twice_and_never_blocks(self) -> None:
        def take(i: int) -> None:
            raise ValueError(i)

        told = 0
        with Behind(take, 1) as behind:
            for i in range(50):
                try:
                    behind.put(i)
                except ValueError:
                    told += 1
        assert told == 1

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
    def test_who_fails_drops_what_waits(self, error: type[BaseException]) -> None:
        go, taken = threading.Event(), []

        def take(i: int) -> None:
            go.wait(10)
            taken.append(i)

        def run() -> None:
            with Behind(take, 3) as behind:
                for i in range(4):
                    behind.put(i)
                assert waited(lambda: behind._waiting.qsize() == 3)
                threading.Timer(0.05, go.set).start()
                raise error

        with pytest.raises(error):
            run()
        assert taken == [0]

    def test_an_interrupt_at_the_end_waits_for_what_is_being_taken_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        go, taken, joins = threading.Event(), [], []

        def take(i: int) -> None:
            go.wait(10)
            taken.append(i)

        behind = Behind(take, 4)

        def join(timeout: float | None = None) -> None:
            joins.append(None)
            if len(joins) == 1:
                threading.Timer(0.05, go.set).start()
                raise KeyboardInterrupt
            if len(joins) == 2:  # still interrupted, so that the second attempt is the last
                raise KeyboardInterrupt
            threading.Thread.join(behind._thread, timeout)

        def run() -> None:
            with behind:
                monkeypatch.setattr(behind._thread, "join", join)
                for i in range(4):
                    behind.put(i)

        with pytest.raises(KeyboardInterrupt):
            run()
        assert taken == [0]
        assert not behind._thread.is_alive()


class TestHandover:
    """Pieces of a result on their way to a writer."""

    def test_pieces_arrive_prepared_and_in_order(self) -> None:
        pieces = [torch.full((1, 2, n, 3), float(n), dtype=torch.float64) for n in (1, 4, 2)]
        found: list[Tensor] = []
        with handover(found.append, lambda values: values.mul(2)) as put:
            for piece in pieces:
                put(piece)
        assert [x.dtype for x in found] == [torch.float32] * 3
        assert all(torch.equal(x, p[0].float() * 2) for x, p in zip(found, pieces, strict=True))

    def test_gradients_stay_behind(self) -> None:
        found: list[Tensor] = []
        with handover(found.append) as put:
            put(torch.ones(1, 2, 3, requires_grad=True))
        assert not found[0].requires_grad

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("checked_only", [True, False])
    def test_the_first_piece_that_is_not_finite_is_told_by_its_positions(
        self, value: float, checked_only: bool
    ) -> None:
        pieces = [torch.zeros(1, 2, n, 3) for n in (1, 4, 4, 4)]
        pieces[2][0, 1, 3, 2] = value
        pieces[3][0, 0, 0, 0] = value
        taken: list[Tensor] = []

        def run() -> None:
            with handover(None if checked_only else taken.append) as put:
                for piece in pieces:
                    put(piece)

        with pytest.raises(NotFiniteError, match="5 to 8") as caught:
            run()
        assert caught.value.positions == (5, 9)
        assert not isinstance(caught.value, VaeportError)
        assert len(taken) == (0 if checked_only else 2)

    def test_a_piece_beyond_float32_is_finite_where_it_stays(self) -> None:
        with handover() as put:
            put(torch.full((1, 1, 1), 1e300, dtype=torch.float64))

    def test_the_run_waits_for_a_slow_writer(self) -> None:
        made: list[weakref.ref[Tensor]] = []
        most = 0

        def take(_: Tensor) -> None:
            nonlocal most
            time.sleep(0.002)
            most = max(most, sum(ref() is not None for ref in made))

        def prepare(values: Tensor) -> Tensor:
            ready = values.clone()
            made.append(weakref.ref(ready))
            return ready

        with handover(take, prepare) as put:
            for _ in range(30):
                put(torch.zeros(1, 2, 3))
        assert len(made) == 30
        assert 2 <= most <= WAITING + 2  # taken, waiting, and made


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnAGPU:
    """The same on a stream beside the one that computes."""

    def test_copies_are_what_was_made_though_its_memory_serves_again(self) -> None:
        found: list[Tensor] = []
        with handover(lambda x: found.append(x.clone()), lambda values: values.mul(2)) as put:
            for i in range(50):
                piece = torch.full((1, 3, 4, 240, 416), float(i), device="cuda", dtype=torch.bfloat16)
                put(piece)
                del piece
        assert all(x.device.type == "cpu" for x in found)
        assert [x.unique().tolist() for x in found] == [[2.0 * i] for i in range(50)]

    def test_what_is_taken_is_pinned(self) -> None:
        pinned: list[bool] = []
        with handover(lambda x: pinned.append(x.is_pinned())) as put:
            put(torch.ones(1, 2, 3, device="cuda"))
        assert pinned == [True]

    def test_the_device_is_not_waited_for(self) -> None:
        with handover(lambda _: None) as put:
            put(torch.ones(1, 2, 3, device="cuda"))
            torch.cuda.synchronize()
            torch.cuda._sleep(2_000_000_000)  # about a second
            start = time.perf_counter()
            put(torch.ones(1, 2, 3, device="cuda"))
            assert time.perf_counter() - start < 0.2
