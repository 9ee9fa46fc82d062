"""What the modules of a run took and gave, written to a folder, so that another process can compare with it.

One folder is one run: `index.json` says which modules were called, with what constants, and which operations they ran;
`<unit>.<call>.safetensors` holds the first tensor in and out of one call. Tensors leave memory at once.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

from vaeport.proof.precision import place, shown_file

_PLAIN = (bool, int, float, str, type(None))
_VIEWS = {"view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "squeeze"} | {
    *(
        "unsqueeze",
        "detach",
        "alias",
        "as_strided",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "clone",
        "_to_copy",
    ),
    *("empty", "empty_like", "new_empty", "lift_fresh"),
}


@dataclass(frozen=True)
class Operation:
    """One ATen operation: which, where, with what numbers, and three sums that no layout changes.

    unit        innermost recorded module
    constants   arguments that are no tensors
    sketch      elements, sum, sum of squares of the result
    inputs      numbers of the operations, in the order of the run, that made what it reads
    """

    unit: str
    name: str
    place: str
    constants: Mapping[str, Any]
    sketch: tuple[float, ...]
    inputs: tuple[int, ...] = ()

    @property
    def computes(self) -> bool:
        """It is no view, copy or allocation."""
        return self.name not in _VIEWS


@dataclass
class Called:
    """A module that ran: its class, where that is written, its plain attributes, and the number of its calls."""

    kind: str
    place: str
    constants: dict[str, Any]
    calls: int = 0


@dataclass
class Record:
    """All that one run showed."""

    units: dict[str, Called] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)


class Captured:
    """A folder that `recorded` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def record(self) -> Record:
        """What ran."""
        plain = json.loads((self.folder / "index.json").read_text("utf-8"))
        operations = [
            Operation(**{**o, "sketch": tuple(o["sketch"]), "inputs": tuple(o["inputs"])}) for o in plain["operations"]
        ]
        return Record({path: Called(**unit) for path, unit in plain["units"].items()}, operations)

    def calls(self, unit: str, end: str) -> list[Tensor]:
        """The tensors "in" or "out" of every call of a module that was recorded."""
        found = self.record.units.get(unit)
        if found is None:
            return []
        number = list(self.record.units).index(unit)
        tensors = []
        for call in range(found.calls):
            with safe_open(self.folder / f"{number}.{call}.safetensors", framework="pt") as file:
                if end in file.keys():  # noqa: SIM118, not a mapping
                    tensors.append(file.get_tensor(end))
        return tensors


@contextmanager
def recorded(module: nn.Module, folder: Path, paths: tuple[str, ...]) -> Iterator[None]:
    """Writes down what the modules at `paths` do within; those that `module` lacks are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = dict(module.named_modules())
    record, stack = Record(), [""]

    def entered(path: str) -> Any:
        def hook(called: nn.Module, args: Any, kwargs: Any) -> None:
            stack.append(path)
            first = first_tensor((args, kwargs))
            if first is not None:
                # an operation in place would change it before the call has ended
                pending[path] = {"in": first.detach().clone(memory_format=torch.contiguous_format)}

        return hook

    def left(path: str, number: int) -> Any:
        def hook(called: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            stack.pop()
            unit, tensors = record.units[path], pending.pop(path, {})
            first = first_tensor(out)
            if first is not None:
                tensors["out"] = first.detach().contiguous()
            save_file({name: t.cpu() for name, t in tensors.items()}, folder / f"{number}.{unit.calls}.safetensors")
            unit.calls += 1

        return hook

    pending: dict[str, dict[str, Tensor]] = {}
    with ExitStack() as hooks:
        for number, path in enumerate(path for path in paths if path in modules):
            record.units[path] = described(modules[path])
            for handle in (
                modules[path].register_forward_pre_hook(entered(path), with_kwargs=True),
                modules[path].register_forward_hook(left(path, number), with_kwargs=True),
            ):
                hooks.callback(handle.remove)
        with Operations(stack) as seen:
            yield
        record.operations = seen.found
    (folder / "index.json").write_text(json.dumps(asdict(record)), "utf-8")


class Operations(TorchDispatchMode):
    """Writes down the operations on floating tensors; `stack` ends with the unit that runs."""

    def __init__(self, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack, self.found = stack, list[Operation]()
        self._made: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        sources = tuple(dict.fromkeys(self._made[t] for t in given if t in self._made))
        out = func(*args, **(kwargs or {}))
        results = [t for t in tree_iter(out) if isinstance(t, Tensor) and t.is_floating_point()]
        if results:
            name = func.overloadpacket.__name__
            constants = constants_of(func, args, kwargs or {})
            for result in results:
                self._made[result] = len(self.found)
            self.found.append(Operation(self.stack[-1], name, place(), constants, sketch(results[0]), sources))
        return out


def sketch(tensor: Tensor) -> tuple[float, ...]:
    """Elements, sum, sum of squares: equal for equal values in any layout."""
    if not tensor.numel():
        return 0.0, 0.0, 0.0
    flat = tensor.detach().double()
    return float(tensor.numel()), flat.sum().item(), flat.pow(2).sum().item()


def constants_of(func: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an operation that are numbers, strings, or lists of them, by the names of its schema."""
    named = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
    return {name: plain(value) for name, value in named.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """A number, a string, None, or tuples and lists of them."""
    if isinstance(value, list | tuple):
        return len(value) <= 64 and all(is_plain(v) for v in value)
    return isinstance(value, _PLAIN)


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def described(module: nn.Module) -> Called:
    """Class, file:line of its forward, and plain attributes of a module, its own and those of modules within."""
    constants = {
        f"{path}.{name}".lstrip("."): plain(value)
        for path, child in module.named_modules()
        for name, value in vars(child).items()
        if not name.startswith("_") and name != "training" and is_plain(value)
    }
    return Called(type(module).__name__, written_at(module), constants)


def written_at(module: nn.Module) -> str:
    """file:line of its forward."""
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return "unknown" if code is None else f"{shown_file(code.co_filename)}:{code.co_firstlineno}"


def first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in tuples, lists, dicts and dataclasses."""
    return next(tensors(value), None)


def tensors(value: Any) -> Iterator[Tensor]:
    """All floating tensors that are no scalars, in tuples, lists, dicts and dataclasses, in their order."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.dim():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from tensors(getattr(value, part.name))
