"""Statistics of what the modules of any model give while it runs, as records of an activation trace.

FastVideo's own trace skips what is no tensor, tuple, list or dict. Here fields of dataclasses and tensors that other
objects hold are named too (`out.latent_dist.mean`), and there is one module more, `""`: what the run gave.

    records = record(vae.decoder, lambda: vae.decode(z))
    with path.open("w", buffering=1) as file, tracing(vae, lambda one: print(one.line(), file=file)): ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.fastvideo_trace import STATS, Record
from vaeport.errors import InputError

_TAKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "abs_mean": lambda t: t.abs().mean(),
    "sum": torch.sum,
    "min": torch.min,
    "max": torch.max,
    "mean": torch.mean,
    "std": lambda t: t.std() if t.numel() > 1 else t.new_tensor(torch.nan),
}


def record(
    module: nn.Module,
    run: Callable[[], Any],
    *,
    layers: str = "",
    stats: Iterable[str] = STATS,
    step: int | None = None,
    accumulate: torch.dtype = torch.float32,
) -> list[Record]:
    """What the modules below `module` give while `run()` runs, and last, as module `""`, what it returns.

    layers      regular expression that is searched for in module paths; empty: all modules
    stats       names out of `STATS`, as few as are wanted; shape and dtype are always there
    accumulate  type in which the statistics are taken; FastVideo's is float32

    Hooks are removed however the run ends. A module whose `forward` is not reached through a call is not seen.

    Raises:
        InputError: an unknown statistic, or a faulty expression.
        Whatever `run` raises.
    """
    found: list[Record] = []
    with tracing(module, found.append, layers=layers, stats=stats, step=step, accumulate=accumulate) as tell:
        tell("", run())
    return found


@contextmanager
def tracing(
    module: nn.Module,
    take: Callable[[Record], Any],
    *,
    layers: str = "",
    stats: Iterable[str] = STATS,
    step: int | None = None,
    accumulate: torch.dtype = torch.float32,
) -> Iterator[Callable[[str, Any], None]]:
    """Gives `take` each record as it arises, so that a run that breaks off leaves what it had; see `record`.

    Yields a function that records any other value under a name.
    """
    names = tuple(stats)
    if unknown := [name for name in names if name not in STATS]:
        raise InputError("no such statistic", found=", ".join(unknown), expected=f"some of {', '.join(STATS)}")
    try:
        wanted = re.compile(layers)
    except re.error as error:
        raise InputError("not a regular expression", where="layers", found=f"{layers!r}: {error}") from error

    def tell(path: str, value: Any) -> None:
        for place, tensor in tensors_in(value):
            taken, failed = _statistics(tensor, names, accumulate)
            take(Record(path, place, step, taken, tuple(tensor.shape), str(tensor.dtype), failed))

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, __, output: tell(path, output)

    with ExitStack() as stack:
        for path, child in module.named_modules():
            if path and wanted.search(path):
                stack.callback(child.register_forward_hook(hook(path)).remove)
        yield tell


def tensors_in(value: Any, place: str = "out") -> list[tuple[str, Tensor]]:
    """The tensors of a module's output with their places, as `Record.tensor` has them; in order."""
    return list(_walk(value, place, ()))


def _walk(value: Any, place: str, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
        return
    if id(value) in above or isinstance(value, type | nn.Module):  # something that holds itself; something that acts
        return
    inside: Iterable[tuple[str, Any]]
    if isinstance(value, tuple | list):
        inside = ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, Mapping):
        inside = ((f".{key}", item) for key, item in value.items())
    elif is_dataclass(value):
        inside = ((f".{one.name}", getattr(value, one.name, None)) for one in fields(value))
    else:
        held = getattr(value, "__dict__", {})
        inside = ((f".{name}", item) for name, item in held.items() if isinstance(item, Tensor))
    for name, item in inside:
        yield from _walk(item, place + name, (*above, id(value)))


def _statistics(tensor: Tensor, names: Sequence[str], dtype: torch.dtype) -> tuple[dict[str, float], dict[str, str]]:
    taken: dict[str, float] = {}
    failed: dict[str, str] = {}
    with torch.no_grad():
        for name in names:
            try:
                taken[name] = float(_TAKEN[name](tensor.detach().to(dtype)).item())
            except Exception as error:  # the extremes of an empty tensor, a tensor without data
                failed[name] = f"<error: {error!r}>"
    return taken, failed
