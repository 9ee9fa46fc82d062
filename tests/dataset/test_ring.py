"""Tensors through memory that two ends share: what is taken is what was put, whatever the room."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaeport.dataset.ring import Array, RingReader, RingWriter
from vaeport.errors import BlockedError


@contextmanager
def ends(room: int) -> Iterator[tuple[RingWriter, RingReader, Connection, Connection]]:
    """Both ends, and the line between them, writer's first."""
    here, there = Pipe()
    reader = RingReader(there, pin=False)
    with here, there:
        try:
            yield RingWriter(reader.memory, here, room), reader, here, there
        finally:
            reader.close()


def numbered(n: int, size: int) -> Tensor:
    """So many bytes as no other tensor has them."""
    return torch.arange(size).mul(7).add(31 * n).to(torch.uint8)


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 25), st.integers(0, 4))
@settings(deadline=None, max_examples=60)
def test_what_is_taken_is_what_was_put(sizes: list[int], room: int, behind: int) -> None:
    """With room for less than one and for several; `behind`: so many wait, as long as there is room for them."""
    tensors = [numbered(n, size) for n, size in enumerate(sizes)]
    with ends(room) as (writer, reader, _, _):
        waiting: list[Array] = []
        taken: list[Tensor] = []
        for tensor in tensors:
            while waiting and (len(waiting) > behind or sum(a.shape[0] for a in waiting) + len(tensor) > room):
                taken.append(reader.take(waiting.pop(0)))
            waiting.append(writer.put(tensor))
        taken += [reader.take(array) for array in waiting]
        assert len(taken) == len(tensors)
        assert all(torch.equal(a, b) for a, b in zip(taken, tensors, strict=True))


def test_shape_and_type_travel() -> None:
    with ends(1 << 10) as (writer, reader, _, _):
        for tensor in (torch.randn(2, 3, 5), torch.arange(6).reshape(2, 3).t(), torch.zeros(0, 4, dtype=torch.uint8)):
            taken = reader.take(writer.put(tensor))
            assert taken.dtype == tensor.dtype
            assert torch.equal(taken, tensor)


def test_who_writes_waits_for_room() -> None:
    """And for no more of it than the tensor needs."""
    with ends(100) as (writer, reader, _, _):
        first, second = (writer.put(numbered(n, 40)) for n in range(2))
        third: list[Array] = []
        thread = threading.Thread(target=lambda: third.append(writer.put(numbered(2, 40))))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert torch.equal(reader.take(first), numbered(0, 40))
        thread.join(10)
        assert torch.equal(reader.take(second), numbered(1, 40))
        assert torch.equal(reader.take(third[0]), numbered(2, 40))


def test_many_small_ones_do_not_fill_the_line() -> None:
    """What was read is told for each, and nobody waits for it."""
    with ends(1 << 20) as (writer, reader, _, _):
        for n in range(5000):
            assert torch.equal(reader.take(writer.put(numbered(n, 3))), numbered(n, 3))


def test_memory_that_is_not_needed_stays_untouched() -> None:
    with ends(1000) as (writer, reader, _, _):
        for n in range(20):
            reader.take(writer.put(numbered(n, 30)))
        assert os.fstat(reader.memory).st_size == 30


def test_what_came_is_taken_though_its_writer_is_gone() -> None:
    with ends(100) as (writer, reader, here, _):
        array = writer.put(numbered(0, 80))
        here.close()
        assert torch.equal(reader.take(array), numbered(0, 80))


def test_room_for_a_large_one_is_given_back() -> None:
    with ends(100) as (writer, reader, _, _):
        reader.take(writer.put(numbered(0, 5000)))
        assert os.fstat(reader.memory).st_size == 5000
        reader.take(writer.put(numbered(1, 50)))
        assert os.fstat(reader.memory).st_size == 50


def test_an_end_that_is_gone_ends_the_other() -> None:
    with ends(100) as (writer, reader, here, there):
        array = writer.put(numbered(0, 80))
        reader.close()
        with pytest.raises(EOFError):
            reader.take(array)
        there.close()
        with pytest.raises(EOFError):
            writer.put(numbered(1, 80))
        assert not here.closed


def test_no_memory_is_no_fault_of_an_item() -> None:
    with ends(100) as (_, reader, here, _):
        closed = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(BlockedError, match="no memory for what was read"):
                RingWriter(closed, here).put(numbered(0, 10))
        finally:
            os.close(closed)
        assert reader.memory >= 0
