"""Shards on their way: what overlaps, how much of it, and what is left of it when something fails."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.dataset.material import contents, pictures
from vaeport.dataset import Settings, encode_dataset, verify
from vaeport.dataset.encoding import Record
from vaeport.dataset.formats.layout import Written
from vaeport.dataset.formats.parquet import ParquetWriter
from vaeport.dataset.inputs import Batch
from vaeport.dataset.log import committed
from vaeport.dataset.making import UNDONE
from vaeport.vae import VAE

pytestmark = pytest.mark.usefixtures("nothing_is_left")
write = ParquetWriter._write


def encoded(vae: VAE, source: Path, folder: Path, **more: Any) -> Any:
    return encode_dataset(vae, source, folder, Settings(shard_items=2), **more)


def test_the_device_encodes_on_while_a_file_is_written(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not further than shards may be begun, and what comes of it is the same."""
    source, done = pictures(tmp_path / "src", [(8, 8)] * 12), list[int]()
    encoded(kl, source, tmp_path / "expected")
    full, waited = threading.Event(), list[bool]()

    def slow(self: ParquetWriter, records: list[Record], name: str) -> Iterator[Written]:
        if self.shard == 0:
            waited.append(full.wait(30))
            threading.Event().wait(0.5)
            waited.append(len(done) == UNDONE * 2)
        yield from write(self, records, name)

    def tell(items: int, _: int) -> None:
        done.append(items)
        if len(done) == UNDONE * 2:
            full.set()

    monkeypatch.setattr(ParquetWriter, "_write", slow)
    encoded(kl, source, tmp_path / "out", tell=tell)
    assert (waited, len(done)) == ([True, True], 12)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_batch_is_waited_for_when_the_next_has_begun(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is of the next shard: the device has always something to do."""
    source, order, pieces = pictures(tmp_path / "src", [(8, 8)] * 4), list[str](), Batch.pieces

    def begun(self: Batch) -> Any:
        order.append("begun")
        return pieces(self)

    monkeypatch.setattr(Batch, "pieces", begun)
    encoded(kl, source, tmp_path / "out", tell=lambda *_: order.append("done"))
    assert order == ["begun", *["begun", "done"] * 3, "done"]


@pytest.mark.parametrize("last", [4, 5])
def test_what_was_encoded_before_a_failure_is_committed(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Of the first batch of a shard, or of another."""
    source, pieces = pictures(tmp_path / "src", [(8, 8)] * 6), Batch.pieces

    def failing(self: Batch) -> Any:
        if self.inputs[0].path.name == f"{last:02d}.png":
            raise ZeroDivisionError
        return pieces(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "pieces", failing)
        with pytest.raises(ZeroDivisionError):
            encoded(kl, source, tmp_path / "out")
    assert list(committed(tmp_path / "out")) == [0, 1]
    assert encoded(kl, source, tmp_path / "out").items == 6
    assert verify(tmp_path / "out").faults == ()


class Scarce:
    """Encodes what is of one sample; says how much of what it made is still held when it is asked again."""

    def __init__(self, vae: VAE, graphs: int = 0) -> None:
        self.encode, self.made, self.held = vae.encode, list[weakref.ref[Tensor]](), list[int]()
        self.graphs, self.calls = graphs, 0

    def __call__(self, x: Tensor) -> Any:
        self.calls += 1
        self.held.append(sum(one() is not None for one in self.made))
        if len(x) > 1 or self.graphs:
            taken = torch.zeros(8)
            self.made.append(weakref.ref(taken))
            raise torch.OutOfMemoryError(f"no memory beside {taken.shape}")
        return self.encode(x)

    def drop(self) -> bool:
        self.graphs -= 1
        return self.graphs >= 0


def test_a_batch_without_memory_is_encoded_item_by_item(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the batch had made is not held meanwhile."""
    source, scarce = pictures(tmp_path / "src", [(8, 8)] * 4), Scarce(kl)
    encoded(kl, source, tmp_path / "expected")
    monkeypatch.setattr(kl, "encode", scarce)
    found = encode_dataset(kl, source, tmp_path / "out", Settings(shard_items=2, batch=2))
    assert (found.items, found.quarantined, scarce.calls) == (4, 0, 6)
    assert scarce.held == [0] * 6
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "expected").keys()


def test_graphs_are_let_go_of_before_an_item_is_given_up(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, scarce = pictures(tmp_path / "src", [(8, 8)] * 2), Scarce(kl, graphs=1)
    monkeypatch.setattr(kl, "encode", scarce)
    monkeypatch.setattr(kl, "drop_graphs", scarce.drop)
    found = encoded(kl, source, tmp_path / "out")
    assert (found.items, found.quarantined, scarce.calls) == (2, 0, 3)


def test_a_failure_to_write_ends_the_run(kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path / "src", [(8, 8)] * 12)

    def failing(self: ParquetWriter, records: list[Record], name: str) -> Iterator[Written]:
        if self.shard == 1:
            raise ZeroDivisionError
        yield from write(self, records, name)

    with monkeypatch.context() as patch:
        patch.setattr(ParquetWriter, "_write", failing)
        with pytest.raises(ZeroDivisionError):
            encoded(kl, source, tmp_path / "out")
    assert list(committed(tmp_path / "out")) == [0]
