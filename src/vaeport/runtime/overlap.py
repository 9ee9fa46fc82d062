"""Work beside the device: items made ahead of it, and items taken behind it, each in a thread of its own.

Both live in a `with` block, which ends when their thread has: nothing reads or writes a file that is being closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Queue, SimpleQueue
from threading import Semaphore, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

from torch import Tensor

from vaeport.closing import Closing
from vaeport.layers.layer import Interval
from vaeport.media import HostCopies
from vaeport.runtime.finite import NotFiniteError

WAITING = 2
"""pieces that wait to be taken while the next is made"""
T = TypeVar("T")


class Ahead(Closing, Generic[T]):
    """The items of an iterable, made in a thread of their own, at most `depth` ahead of who asks for them.

    What the iterable raises, the one who asks gets, as it is. `close` ends the thread, and with it a generator.
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._items, self._room = items, Semaphore(depth)
        self._made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
        self._unwanted = self._over = False
        self._thread = Thread(target=self._run, name="vaeport-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = None if self._over else self._made.get()
        if isinstance(found, tuple):
            self._room.release()
            return found[0]
        self._over = True
        try:
            raise StopIteration if found is None else found
        finally:
            del found  # an error that a frame in its traceback holds is freed late, and all it holds with it

    def close(self) -> None:
        """End the thread once the item that it makes is done; items that nobody took are dropped."""
        self._unwanted = self._over = True
        self._room.release()
        _join(self._thread)

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                items = iter(self._items)
                if isinstance(items, Generator):
                    stack.callback(items.close)
                while self._room.acquire() and not self._unwanted:
                    self._made.put((next(items),))
            self._made.put(None)
        except StopIteration:
            self._made.put(None)
        except BaseException as error:  # whatever it is, it is raised where the items are asked for
            self._made.put(error)


class Behind(Generic[T]):
    """Hands items to `take` in a thread of its own, in their order, while at most `depth` of them wait.

    A `with` block, at whose clean end all have been taken; any other end drops those that wait. What `take` raises is
    raised by the next `put` or at the end of the block, as it is, and nothing is taken after it.
    """

    def __init__(self, take: Callable[[T], object], depth: int) -> None:
        self._take, self._dropped = take, False
        self._error: BaseException | None = None
        self._waiting: Queue[tuple[T] | None] = Queue(depth)
        self._thread = Thread(target=self._run, name="vaeport-behind", daemon=True)

    def put(self, item: T) -> None:
        """Hand over an item; waits for room."""
        self._raise()
        self._waiting.put((item,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropped = self._dropped or kind is not None
        try:
            self._end()
        finally:  # an interrupt while it waited: what is being taken now is the last
            self._dropped = True
            self._end()
        if kind is None:
            self._raise()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
        _join(self._thread)

    def _raise(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if not self._dropped:
                try:
                    self._take(item[0])
                except BaseException as error:
                    self._error, self._dropped = error, True
            del item


@contextmanager
def handover(
    take: Callable[[Tensor], object] | None = None, prepare: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Callable[[Tensor], None]]:
    """A block around a run that makes a result in pieces; it yields the function that each piece is given to.

    The device waits for nothing, and at most `WAITING` pieces wait for it. Whether a piece is finite travels with it.

    take        is given what was made of each piece, in host memory and in a thread; None: pieces are only checked
    prepare     makes, on the device, of [C, n, ...] in float32 what is taken; None: it is taken as it is
    NotFiniteError for the first piece [1, C, n, ...] that is not finite, which is not taken, nor is any after it.
    """
    copies, at = HostCopies(), 0

    def arrived(piece: tuple[Interval, Callable[[], tuple[Tensor, ...]]]) -> None:
        positions, wait = piece
        finite, *ready = wait()
        if not finite:
            raise NotFiniteError(positions)
        if take is not None:
            take(*ready)

    with Behind(arrived, WAITING) as behind:

        def put(piece: Tensor) -> None:
            nonlocal at
            values = piece.detach()[0] if take is None else piece.detach()[0].float()
            made = () if take is None else (values if prepare is None else prepare(values),)
            behind.put(((at, at + piece.shape[2]), copies.start(values.isfinite().all(), *made)))
            at += piece.shape[2]

        yield put


def _join(thread: Thread) -> None:
    try:
        thread.join()
    finally:  # again if it was interrupted, since the thread may hold a file that is closed next
        thread.join()
