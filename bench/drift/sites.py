"""What a kind of fault is, where it can be put, and the ways in which it is put into a loaded VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from bench.drift import ported
from vaeport.layers import Layer
from vaeport.vae import VAE


@dataclass(frozen=True)
class Site:
    """Where a fault is put.

    path    of a native module; "", "encoder" or "decoder" for the VAE's own steps
    detail  which of several faults of a kind at one path
    also    further paths, any of which names the place as well
    """

    path: str
    detail: str = ""
    also: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """All paths that name it."""
        return (self.path, *self.also)


Sites = Callable[[VAE], list[Site]]
Inject = Callable[[VAE, Site], None]


@dataclass(frozen=True)
class Kind:
    """One way of porting a thing wrongly: `cause` is its class, `inject` changes a loaded VAE in place."""

    name: str
    cause: str
    sites: Sites
    inject: Inject


KINDS: dict[str, Kind] = {}
_RIGHT: WeakKeyDictionary[type, type] = WeakKeyDictionary()
"""Class of a wrong port -> the right one."""


def kind(cause: str, sites: Sites) -> Callable[[Inject], Inject]:
    """Enters a function as the kind of its name."""

    def entered(inject: Inject) -> Inject:
        name = inject.__name__
        assert name not in KINDS, name
        KINDS[name] = Kind(name, cause, sites, inject)
        return inject

    return entered


def of(*classes: type[nn.Module], when: Callable[[Any], bool] = lambda module: True, details: Any = ("",)) -> Sites:
    """All modules of these classes for which `when` holds, once per detail."""

    def sites(vae: VAE) -> list[Site]:
        return [
            Site(path, detail)
            for path, module in vae.named_modules()
            if isinstance(module, classes) and when(module)
            for detail in details
        ]

    return sites


def halves(when: Callable[[VAE], bool] = lambda vae: True, names: tuple[str, ...] = ("encoder", "decoder")) -> Sites:
    """The VAE's own steps before and after each half."""
    return lambda vae: [Site(name) for name in names if when(vae)]


def whole(when: Callable[[VAE], bool] = lambda vae: True, also: tuple[str, ...] = ()) -> Sites:
    """The VAE's own steps."""
    return lambda vae: [Site("", also=also)] if when(vae) else []


def modality(*names: str) -> Callable[[VAE], bool]:
    """Of VAEs of these media."""
    return lambda vae: vae.contract.modality in names


def at(vae: VAE, site: Site) -> Any:
    """The module of a site."""
    return vae.get_submodule(site.path)


def rewrite(vae: VAE, site: Site, **methods: Any) -> None:
    """Gives the module of a site a class of its own with these methods, as a wrong port would have.

    The right class is not among its bases, nor in its file: what is right must be found, not looked up. A layer whose
    `forward` is written anew runs in one piece, since `step` is written for the right one.
    """
    module = at(vae, site)
    base = type(module)
    if unknown := [name for name in methods if not hasattr(base, name)]:
        raise AttributeError(f"{base.__name__} has no {', '.join(unknown)} that could be wrong")
    hidden = ("__dict__", "__weakref__")
    kept = {name: value for name, value in vars(base).items() if name not in hidden}
    module.__class__ = type(base.__name__, base.__bases__, {**kept, "__module__": ported.__name__, **methods})
    _RIGHT[type(module)] = base
    if "forward" in methods:
        in_one_piece(vae)


def is_a(module: nn.Module, *classes: type[nn.Module]) -> bool:
    """Whether a module is of these classes, or is a wrong port of one."""
    return issubclass(_RIGHT.get(type(module), type(module)), classes)


def rewritten(vae: VAE, path: str) -> str | None:
    """Name of the right class of a module whose class was rewritten."""
    right = _RIGHT.get(type(vae.get_submodule(path)))
    return None if right is None else right.__name__


def derive(vae: VAE, path: str, **methods: Any) -> None:
    """Gives a module these methods; it stays what it is."""
    module = vae.get_submodule(path)
    base = type(module)
    module.__class__ = type(base.__name__, (base,), methods)
    if "forward" in methods:
        in_one_piece(vae)


def in_one_piece(vae: VAE) -> None:
    """The VAE runs whole where it would run piece by piece; the function is the same."""
    vae.encode_pieces = vae.decode_pieces = None  # type: ignore[misc]


def method(vae: VAE, name: str, function: Callable[..., Any]) -> None:
    """Replaces a method of the VAE itself."""
    setattr(vae, name, MethodType(function, vae))


def same(x: Tensor) -> Tensor:
    """x."""
    return x


def around(vae: VAE, half: str, before: Callable[[Tensor], Tensor] = same, after: Any = same) -> None:
    """Changes what goes into one half, or what comes out of it."""
    inner = vae._run.__func__  # type: ignore[attr-defined]

    def _run(self: VAE, name: str, layer: Layer, x: Tensor, pieces: tuple[int, int] | None) -> Tensor:
        if name != half:
            return inner(self, name, layer, x, pieces)
        return after(inner(self, name, layer, before(x), pieces))

    method(vae, "_run", _run)


def children(vae: VAE, *classes: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """Paths and modules of these classes."""
    return ((path, module) for path, module in vae.named_modules() if isinstance(module, classes))


def posterior_class(vae: VAE, **members: Any) -> None:
    """Gives the posterior a class of its own with these members."""
    inner = vae._posterior.__func__  # type: ignore[attr-defined]

    def _posterior(self: VAE, moments: Tensor) -> Any:
        found = inner(self, moments)
        base = type(found)
        found.__class__ = type(base.__name__, (base,), members)
        return found

    method(vae, "_posterior", _posterior)
