"""How an implementation that nobody here wrote is built, called and read: `Convention` and `Caller`.

A convention is plain data. It is found by probing and kept with a port, so that no wrapper has to be written by hand.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.errors import ProofError
from vaeport.proof.noise import Noise, without_noise

Outputs = dict[str, Tensor]
WEIGHTS = "{weights}"
"""Stands for the path of the official checkpoint in constructor arguments."""
CALLS = {"encode": "encode_arguments", "decode": "decode_arguments", "attributes": "attributes"}
"""What a user may say of the way in which an implementation is called -> field of `Convention`."""


@dataclass(frozen=True)
class Convention:
    """How encode and decode are called and what their results mean.

    encode_arguments, decode_arguments
                    further arguments of the two methods; {"tensor": [...]} stands for a tensor, {"per_sample": 0.05}
                    for one with that number for every sample
    attributes      what is set on the implementation once it is built, which may have forgotten to do so itself
    listed          both take and give lists of samples without batch axis
    moments         path of the module whose output is the moments, where encode does not give them; "" none
    normalized      encode gives and decode takes latents as the diffusion model sees them
    stubs           see `vaeport.proof.importing`
    weights         path of the official checkpoint, for constructors that ask for it
    """

    encode_arguments: Mapping[str, Any] = field(default_factory=dict)
    decode_arguments: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = False
    moments: str = ""
    normalized: bool = False
    stubs: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None

    @classmethod
    def of_calls(cls, given: Mapping[str, Any]) -> Convention:
        """From {"encode": {...}, "decode": {...}, "attributes": {...}}; ProofError for other names."""
        if unknown := set(given) - set(CALLS):
            found, expected = ", ".join(sorted(unknown)), ", ".join(CALLS)
            raise ProofError("call arguments of what?", where="--call-args", expected=expected, found=found)
        return cls(**{CALLS[name]: value for name, value in given.items()})


def build(cls: Any, arguments: Mapping[str, Any], weights: str | None = None) -> Any:
    """`cls.from_config(arguments)` where there is such a method, else `cls(**arguments)`.

    An argument that is annotated as a dataclass is made of its fields; "torch.float64" and the like are types.
    """
    from_config = getattr(cls, "from_config", None)
    try:
        if from_config is not None:
            return from_config(dict(arguments))
        hints = _hints(cls)
        return cls(**{name: _value(value, hints.get(name), weights) for name, value in arguments.items()})
    except ProofError:
        raise
    except (Exception, SystemExit) as error:
        raise ProofError(
            "the reference cannot be built",
            where=f"{getattr(cls, '__qualname__', cls)}{_signature(cls)}",
            found=f"{type(error).__name__}: {error}",
            fix="give its arguments as JSON (--reference-args, or --args of `port`), or build it in an --adapter",
        ) from error


def owner(built: Any) -> nn.Module:
    """The module that owns the weights: what was built, or the one module among its attributes."""
    if isinstance(built, nn.Module):
        return built
    modules = (
        [value for value in vars(built).values() if isinstance(value, nn.Module)] if hasattr(built, "__dict__") else []
    )
    if len(modules) != 1:
        found = f"{type(built).__name__} with {len(modules)} modules among its attributes"
        raise ProofError(
            "the reference is not a torch module", expected="a module, or an object that has one", found=found
        )
    return modules[0]


class Caller:
    """One built implementation, called by its convention; `tools` may have functions that do it instead."""

    def __init__(self, built: Any, convention: Convention, tools: Mapping[str, Callable[..., Any]]) -> None:
        self.built, self.convention, self.tools = built, convention, tools
        self.module = owner(built).eval().requires_grad_(False)
        for name, value in convention.attributes.items():
            setattr(built, name, value)

    def encode(self, x: Tensor) -> Outputs:
        """mean, std and moments, or `normalized` in place of mean, as far as the implementation offers them."""
        if "encode" in self.tools:
            return dict(self.tools["encode"](self.built, x))
        with self._moments() as moments:
            result, sampled = without_noise(lambda: self.raw("encode", x))
        posterior = read(result)
        name = "normalized" if self.convention.normalized else "mean"
        if isinstance(posterior, Tensor):
            out = {name: posterior}
            if sampled:
                with Noise(1.0):
                    ones = read(self.raw("encode", x))
                assert isinstance(ones, Tensor)
                out["std"] = ones - posterior
        else:
            out = {name: posterior.mode(), "std": posterior.std}
            if isinstance(getattr(posterior, "parameters", None), Tensor):
                out["moments"] = posterior.parameters
        if moments:
            samples = len(x) if self.convention.listed else 1
            calls = len(moments) // samples
            rows = [torch.cat(moments[i * calls : (i + 1) * calls], 2) for i in range(samples)]
            out["moments"] = torch.cat(rows)
        return out

    def decode(self, z: Tensor) -> Tensor:
        """The decoded media, from latents as its encode gives them."""
        if "decode" in self.tools:
            return typing.cast(Tensor, self.tools["decode"](self.built, z))
        result = self.raw("decode", z)
        sample = getattr(result, "sample", result[0] if isinstance(result, tuple) else result)
        if not isinstance(sample, Tensor):
            raise ProofError(
                "decode gave no tensor", expected="a tensor, or an object with .sample", found=type(result)
            )
        return sample

    def normalize(self, z: Tensor) -> Tensor | None:
        """Latents as the pipelines of the reference hand them to their model, from its own `config`; None without one.

        With statistics per channel: (z - mean) * scale / std; else (z - shift) * scale.
        """
        if "normalize" in self.tools:
            return typing.cast(Tensor | None, self.tools["normalize"](self.built, z))
        config = getattr(self.built, "config", None)
        if config is None:
            return None
        names = ("latents_mean", "latents_std", "shift_factor", "scaling_factor")
        # statistics that lie in the checkpoint are buffers of the class
        buffers = dict(self.module.named_buffers(recurse=False))
        mean, std, shift, scale = (getattr(config, name, buffers.get(name)) for name in names)
        factor = 1.0 if scale is None else float(scale)
        if mean is None or std is None:
            return (z - float(shift or 0.0)) * factor
        view = (-1, *(1,) * (z.dim() - 2))
        centre, spread = (torch.as_tensor(t, dtype=z.dtype, device=z.device).view(view) for t in (mean, std))
        return (z - centre) * (factor / spread)

    def raw(self, method: str, tensor: Tensor) -> Any:
        """What `encode` or `decode` itself gives; lists are stacked again."""
        given = getattr(self.convention, f"{method}_arguments")
        arguments = {name: _tensors(value, tensor) for name, value in given.items()}
        call = getattr(self.built, method)
        if not self.convention.listed:
            return call(tensor, **arguments)
        return torch.stack(list(call(list(tensor.unbind(0)), **arguments)))

    def cast(self, device: str, dtype: torch.dtype) -> None:
        """Moves tensors that lie beside the module, such as latent statistics of a wrapper."""
        if self.built is not self.module:
            for name, value in vars(self.built).items():
                if not isinstance(value, nn.Module):
                    setattr(self.built, name, _moved(value, device, dtype))

    @contextmanager
    def _moments(self) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []
        if not self.convention.moments:
            yield seen
            return
        tapped = self.module.get_submodule(self.convention.moments)
        handle = tapped.register_forward_hook(lambda module, args, out: seen.append(out))
        try:
            yield seen
        finally:
            handle.remove()


def read(result: Any) -> Any:
    """The posterior, or the latents, in the result of an encode: `.latent_dist`, or the first of a tuple."""
    return getattr(result, "latent_dist", result[0] if isinstance(result, tuple | list) else result)


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(vars(cls).get("__init__", cls) if isinstance(cls, type) else cls)
    except Exception:  # annotations of foreign code may name anything
        return {}


def _value(value: Any, hint: Any, weights: str | None) -> Any:
    if value == WEIGHTS:
        if weights is None:
            raise ProofError(
                "the constructor asks for the checkpoint", expected=f"a file for {WEIGHTS}", fix="--weights"
            )
        return weights
    if isinstance(value, str) and value.startswith("torch.") and hasattr(torch, value[6:]):
        return getattr(torch, value[6:])
    if isinstance(value, Mapping) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint(**value)
    return value


def _signature(cls: Any) -> str:
    try:
        return str(inspect.signature(cls))
    except (TypeError, ValueError):
        return ""


def _tensors(value: Any, like: Tensor) -> Any:
    if isinstance(value, Mapping) and set(value) == {"tensor"}:
        return torch.tensor(value["tensor"], dtype=like.dtype, device=like.device)
    if isinstance(value, Mapping) and set(value) == {"per_sample"}:
        return torch.full((len(like),), value["per_sample"], dtype=like.dtype, device=like.device)
    return [_tensors(v, like) for v in value] if isinstance(value, list) else value


def _moved(value: Any, device: str, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(device, dtype)
    return type(value)(_moved(v, device, dtype) for v in value) if type(value) in (list, tuple) else value
