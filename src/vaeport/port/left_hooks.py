"""Hooks, patched methods and modes that a debugging session left in this process."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from vaeport.port.leftover import Leftover

_TORCH = Path(torch.__file__).parent
_TOGGLES = re.compile(r"_DEBUG_PATCH_|^FASTVIDEO_TRACE_ACTIVATIONS$")


def hooks(modules: Mapping[str, nn.Module]) -> Iterator[Leftover]:
    """Hooks on modules and on all modules, methods that hide those of the class, active torch modes, debug toggles.

    modules     the two implementations by name

    What the files of the modules' own classes and torch itself (weight norm) put there is part of the model.
    """
    for name, module in modules.items():
        own = {code_file(vars(base).get("forward")) for m in module.modules() for base in type(m).__mro__}
        for path, child in module.named_modules():
            yield from _on(child, ".".join(filter(None, (name, path))), own - {None})
    for slot, held in vars(torch_module).items():
        if re.fullmatch(r"_global_\w+_hooks", slot) and isinstance(held, Mapping):
            for call in held.values():
                fix = "call remove() on the handle that registered it"
                yield Leftover("hook", f"all modules, {slot}", described(call), fix)
    yield from _active()


def _on(module: nn.Module, where: str, own: set[str | None]) -> Iterator[Leftover]:
    for slot, held in vars(module).items():
        if slot.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(held, Mapping):
            for call in held.values():
                if callable(call) and not _is_own(call, own):
                    yield Leftover("hook", f"{where}, {slot}", described(call), "call remove() on its handle")
            continue
        method = isinstance(held, FunctionType | MethodType | functools.partial)
        if method and callable(getattr(type(module), slot, None)) and not _is_own(held, own):
            yield Leftover("patch", f"{where}.{slot}", described(held), f"delete the attribute `{slot}` of the module")


def _active() -> Iterator[Leftover]:
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    for mode in (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()):
        yield Leftover(
            "mode", "this process", f"{type(mode).__module__}.{type(mode).__qualname__} is active", "leave it"
        )
    for name, value in os.environ.items():
        if _TOGGLES.search(name) and value not in ("", "0"):
            yield Leftover("toggle", "environment", f"{name} is set", f"unset {name}")


def _is_own(call: Any, own: set[str | None]) -> bool:
    file = code_file(call)
    return file in own or (file is not None and Path(file).is_relative_to(_TORCH))


def code_file(call: Any) -> str | None:
    """The file that the code of a function, method, partial or callable object is from; None for builtins."""
    call = unbound(call)
    if not isinstance(call, FunctionType) and not isinstance(call, type):
        call = vars(type(call)).get("__call__")
    return call.__code__.co_filename if isinstance(call, FunctionType) else None


def unbound(call: Any) -> Any:
    """The function inside a method, property, class method, static method or partial."""
    while True:
        if isinstance(call, MethodType | staticmethod | classmethod):
            call = call.__func__
        elif isinstance(call, functools.partial):
            call = call.func
        elif isinstance(call, property):
            call = call.fget
        else:
            return call


def described(call: Callable[..., Any]) -> str:
    """Name and place of a callable, in words that fit on every machine."""
    plain = unbound(call)
    name = getattr(plain, "__qualname__", type(plain).__qualname__)
    code = getattr(plain, "__code__", None)
    if code is None:
        return f"{type(plain).__module__}.{name}"
    return f"{name} ({'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno})"
