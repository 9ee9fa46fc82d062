"""A checkpoint's tensors as few rows: numbered siblings stand in one row, `up.{0..3}.block.{0..2}.conv1.weight`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.text import cut, natural, size_text

MAX_DEPTH = 32  # key components; a hostile name may have millions
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")

Name = tuple[tuple[str, ...], ...]  # per key component its alternatives


@dataclass(frozen=True)
class Row:
    """Tensors in one row: every combination of the numbers in braces is a tensor, no more and no fewer.

    `shape` gives the range of a size that differs among them, and is empty where a row sums up a whole prefix.
    """

    name: str
    shape: str
    dtype: str
    tensors: int
    parameters: int
    nbytes: int

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The row as text: name, shape, dtype, count, parameters, size."""
        count = f"x{self.tensors}" if self.tensors > 1 else ""
        return self.name, self.shape, self.dtype, count, f"{self.parameters:,}", size_text(self.nbytes)


@dataclass(frozen=True)
class _Cell:
    name: Name
    kind: Hashable  # rows of different kinds are never merged
    members: tuple[Entry, ...]


def merged_rows(entries: Iterable[Entry], max_depth: int | None) -> tuple[Row, ...]:
    """Rows in natural order of their first tensor; below `max_depth` components a prefix is summed up as `prefix.*`."""
    leaves = [_leaf(entry, max_depth) for entry in sorted(entries, key=lambda entry: natural(entry.name))]
    cells = _group(leaves, lambda cell: (cell.kind, cell.name), position=None)
    for position in reversed(range(max((len(cell.name) for cell in cells), default=0))):
        cells = _group(cells, lambda cell, at=position: _siblings(cell, at), position)  # type: ignore[misc]
    return tuple(map(_row, cells))


def _leaf(entry: Entry, max_depth: int | None) -> _Cell:
    parts = entry.name.split(".", MAX_DEPTH - 1)
    if max_depth is not None and len(parts) > max_depth:
        return _Cell((*((part,) for part in parts[:max_depth]), ("*",)), None, (entry,))
    return _Cell(tuple((part,) for part in parts), (entry.dtype, len(entry.shape)), (entry,))


def _siblings(cell: _Cell, at: int) -> Hashable:
    """Equal for cells that differ in the number at one position alone."""
    if at < len(cell.name) and _NUMBER.fullmatch(cell.name[at][0]):
        return cell.kind, cell.name[:at], cell.name[at + 1 :]
    return cell


def _group(cells: Iterable[_Cell], key: Callable[[_Cell], Hashable], position: int | None) -> list[_Cell]:
    groups: dict[Hashable, list[_Cell]] = defaultdict(list)
    for cell in cells:
        groups[key(cell)].append(cell)
    return [_join(group, position) if len(group) > 1 else group[0] for group in groups.values()]


def _join(group: Sequence[_Cell], position: int | None) -> _Cell:
    first = group[0]
    members = tuple(entry for cell in group for entry in cell.members)
    if position is None:
        return _Cell(first.name, first.kind, members)
    numbers = tuple(number for cell in group for number in cell.name[position])
    return _Cell((*first.name[:position], numbers, *first.name[position + 1 :]), first.kind, members)


def _row(cell: _Cell) -> Row:
    shape = ""
    if cell.kind is not None:
        sizes = zip(*(entry.shape for entry in cell.members), strict=True)
        shape = f"[{', '.join(_range(sorted(set(dimension))) for dimension in sizes)}]"
    return Row(
        name=cut(".".join(_alternatives(part) for part in cell.name), 120),
        shape=shape,
        dtype=", ".join(sorted({entry.dtype_name for entry in cell.members})),
        tensors=len(cell.members),
        parameters=sum(entry.parameters for entry in cell.members),
        nbytes=sum(entry.nbytes for entry in cell.members),
    )


def _range(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}..{sizes[-1]}"


def _alternatives(part: tuple[str, ...]) -> str:
    """`{0..3,7}` for several numbers, the component itself for one."""
    if len(part) == 1:
        return part[0]
    runs: list[list[int]] = []
    for number in sorted(map(int, part)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "{" + ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) + "}"


def aligned(table: Sequence[Sequence[str]], numbers_from: int) -> list[str]:
    """Text columns to the left, number columns (from `numbers_from` on) to the right, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at >= numbers_from else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
