"""FastVideo's activation trace: statistics of what each module gives, one JSON object a line, written and read.

    {"module": "block.layers.0", "tensor": "out", "step": 0, "abs_mean": 1.2, "sum": -5.6, "shape": [1, 4096, 5120]}

Lines stand in the order in which the modules finished, so children come before their parents. A module that is called
five times has five lines. `tensor` is `out`, with `[0]` for places in a tuple or list and `.key` for those of a dict;
`step` is the denoising step or null. The statistics are those of the tensor as float32, `std` with n - 1. A statistic
that could not be had is a text `<error: ...>`; NaN and Infinity stand as such, which is not strict JSON.

`vaeport.drift.activations` records a run, `vaeport.drift.trace_compare` puts two traces side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaeport.checkpoint.files import nearest_paths, reading
from vaeport.checkpoint.text import cut, short
from vaeport.errors import ProofError
from vaeport.media.atomic import atomic

STATS = ("abs_mean", "sum", "min", "max", "mean", "std")
"""numbers; a line may also have `shape` and `dtype`"""
LONGEST = 1_000_000  # bytes of a line
_REQUIRED = ("module", "tensor", "step")


@dataclass(frozen=True)
class Record:
    """One tensor that a module gave.

    module, tensor  path of the module; place of the tensor in what it gave
    step            denoising step, or None
    stats           the statistics by name, in the order of the line
    shape, dtype    such as (1, 16, 32) and "torch.float32"; None where the line has none
    failed          statistics that could not be had, each with the text that says why
    more            fields that are not known here, kept and written back
    """

    module: str
    tensor: str = "out"
    step: int | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The record as a line of a trace, without its newline."""
        held = {"shape": None if self.shape is None else list(self.shape), "dtype": self.dtype}
        known = {name: value for name, value in held.items() if value is not None}
        names = {"module": self.module, "tensor": self.tensor, "step": self.step}
        return json.dumps({**names, **self.stats, **known, **self.failed, **self.more})


def write_trace(records: Iterable[Record], path: str | Path) -> None:
    """Writes a trace; the file appears whole or not at all.

    Raises:
        ProofError: the folder does not exist, or the name is taken by something else.
        BlockedError: the system refuses to write.
    """
    with atomic(path, ProofError) as partial, partial.open("w", encoding="ascii") as file:
        file.writelines(f"{one.line()}\n" for one in records)


def read_trace(path: str | Path) -> list[Record]:
    """The records of a trace, in their order; empty lines are passed over.

    Raises:
        ProofError: there is no such file, it holds no record, or a line is none; `where` is FILE:LINE.
        BlockedError: the system refuses to read it.
    """
    path = Path(path)
    if not path.is_file():
        raise ProofError("no trace here", where=path, found="a folder" if path.is_dir() else nearest_paths(path))
    found = []
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
            if line.strip():
                found.append(_parsed(line, f"{path}:{number}"))
    if not found:
        raise ProofError("the trace is empty", where=path, fix="trace again; no module matched, or none ran")
    return found


def _parsed(line: bytes, where: str) -> Record:
    if len(line) > LONGEST:
        raise _misfit(where, f"a line of at most {LONGEST} bytes", "a longer one", "keep dumps out of traces")
    try:
        held = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            fix = "the run was cut off while it wrote: remove this line, or trace again"
            raise _misfit(where, "a JSON object and a newline", f"a torn last line: {short(line)}", fix) from error
        raise _misfit(where, "one JSON object", f"{cut(str(error))}: {short(line)}") from error
    if not isinstance(held, dict):
        raise _misfit(where, "one JSON object", f"a {type(held).__name__}: {short(held)}")
    if lacking := [name for name in _REQUIRED if name not in held]:
        raise _misfit(where, f"the fields {', '.join(_REQUIRED)}", f"no {', '.join(lacking)}")
    return _typed(held, where)


def _typed(held: dict[str, Any], where: str) -> Record:
    stats: dict[str, float] = {}
    failed: dict[str, str] = {}
    more: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for name, value in held.items():
        if name in (*STATS, "shape", "dtype") and isinstance(value, str) and value.startswith("<error"):
            failed[name] = value
        elif name in STATS:
            stats[name] = _number(value, f"{where}, {name}")
        elif name in _FORMS:
            right, expected = _FORMS[name]
            if not right(value):
                raise _misfit(f"{where}, {name}", expected, short(value))
            known[name] = tuple(value) if name == "shape" else value
        else:
            more[name] = value
    return Record(**known, stats=stats, failed=failed, more=more)


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise _misfit(where, "a number, or a text <error: ...>", short(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(_is_whole(size) and size >= 0 for size in value)


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "module": (lambda value: isinstance(value, str), "the path of a module"),
    "tensor": (lambda value: isinstance(value, str), "the place of a tensor, such as out or out[0]"),
    "step": (lambda value: value is None or _is_whole(value), "a whole number, or null"),
    "shape": (_are_sizes, "a list of sizes"),
    "dtype": (lambda value: isinstance(value, str), "a dtype, such as torch.float32"),
}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        raise ValueError("a field stands twice")
    return held


def _misfit(where: str, expected: str, found: str, fix: str = "trace again, or correct the line") -> ProofError:
    return ProofError("not a line of an activation trace", where=where, expected=expected, found=found, fix=fix)
