"""What a latent file says of its latents: who made them, of what, and under which contract."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, Literal, Self, TypedDict, get_args

import torch

from vaeport.errors import InputError, LatentFileError

FORMAT_VERSION = 1

Modality = Literal["image", "video", "audio"]
Posterior = Literal["mode", "sample"]


class Source(TypedDict, total=False):
    """What was encoded, and so what decoding gives back; sizes are before padding. Each modality requires its own."""

    modality: Modality
    frames: int
    height: int
    width: int
    samples: int
    rate: str
    """Frames per second, as a fraction: "30000/1001"."""
    sample_rate: int
    pad: dict[str, list[int]]
    """Per axis ("frames", "height", "width", "samples"): how many were added before and after."""


@dataclass(frozen=True, kw_only=True)
class LatentHeader:
    """Who made the latents, of what, and how. Everything in it is plain JSON.

    Raises:
        InputError: a field is of the wrong type or value, or is not JSON.
    """

    model: str
    """Native name of the model, such as `wan`."""
    class_name: str
    contract: dict[str, Any]
    """The model's latent contract."""
    posterior: Posterior
    normalized: bool
    """Whether the model's latent normalisation was applied."""
    source: Source
    dtype: str
    """Of the tensor, such as `bfloat16`."""
    weights_hash: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps({"contract": self.contract, "source": self.source}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError("the latent header is not plain JSON", found=error) from error
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        for name, expected, ok in _checks(self):
            if not ok:
                found = reprlib.repr(getattr(self, name))
                raise InputError(f"the latent header is wrong in `{name}`", expected=expected, found=found)

    @classmethod
    def from_json(cls, document: str) -> Self:
        """Parse what `to_json` wrote.

        Raises:
            LatentFileError: not such a document, or of a newer format.
        """
        try:
            values = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise LatentFileError("the header of the latent file is damaged", found=error) from error
        version = values.get("format_version") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise LatentFileError(
                "the latent file is newer than this vaeport",
                expected=f"format version {FORMAT_VERSION} or older",
                found=version,
                fix="pip install --upgrade vaeport",
            )
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or sorted(values) != sorted(known):
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise LatentFileError("the header of the latent file is damaged", expected=sorted(known), found=found)
        try:
            return cls(**values)
        except InputError as error:
            raise LatentFileError(error.what, expected=error.expected, found=error.found) from error

    def to_json(self) -> str:
        """The header as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def require(self, contract: Mapping[str, Any], model: str) -> None:
        """Make sure that the latents were made for `model` under `contract`.

        Raises:
            LatentFileError: they were not; each field that differs is named with what is expected and what was found.
        """
        wanted = {"model": model, "contract": json.loads(json.dumps(contract))}
        differing = list(differences(wanted, {"model": self.model, "contract": self.contract}))
        if differing:
            raise LatentFileError(
                "these latents belong to another model or another contract",
                where=", ".join(name for name, _, _ in differing),
                expected="; ".join(f"{name} = {value}" for name, value, _ in differing),
                found="; ".join(f"{name} = {value}" for name, _, value in differing),
                fix=f"decode with the model that made them: {self.model}",
            )
        kinds = {"image": ("image",), "video": ("video", "image"), "audio": ("audio",)}
        modality = str(contract.get("modality", self.source["modality"]))
        if self.source["modality"] not in kinds.get(modality, ()):
            raise LatentFileError(
                "the latents are of another kind of media", expected=modality, found=self.source["modality"]
            )


def _checks(header: LatentHeader) -> Iterator[tuple[str, str, bool]]:
    """Each field, what it must be, and whether it is."""
    yield "format_version", f"1 to {FORMAT_VERSION}", header.format_version in range(1, FORMAT_VERSION + 1)
    for name in ("model", "class_name"):
        yield name, "a name", isinstance(getattr(header, name), str) and bool(getattr(header, name))
    yield "contract", "an object", isinstance(header.contract, dict)
    yield "posterior", " or ".join(get_args(Posterior)), header.posterior in get_args(Posterior)
    yield "normalized", "true or false", isinstance(header.normalized, bool)
    dtype = getattr(torch, header.dtype, None) if isinstance(header.dtype, str) else None
    yield "dtype", "a floating type", isinstance(dtype, torch.dtype) and dtype.is_floating_point
    yield "weights_hash", "a string or null", isinstance(header.weights_hash, str | None)
    yield "source", "the fields of `Source`, with their types", _is_source(header.source)


def _is_source(source: Any) -> bool:
    counts = ("frames", "height", "width", "samples", "sample_rate")
    if not isinstance(source, dict) or not set(source) <= {"modality", "rate", "pad", *counts}:
        return False
    pad = source.get("pad", {})
    sizes = {
        "image": ("height", "width"),
        "video": ("frames", "height", "width", "rate"),
        "audio": ("samples", "sample_rate"),
    }
    return (
        source.get("modality") in get_args(Modality)
        and set(sizes[source["modality"]]) <= set(source)
        and all(_is_count(source[name]) and source[name] > 0 for name in counts if name in source)
        and _is_rate(source.get("rate", "1"))
        and isinstance(pad, dict)
        and set(pad) <= {"frames", "height", "width", "samples"}
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_count, pair)) for pair in pad.values())
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_rate(value: Any) -> bool:
    try:
        return isinstance(value, str) and Fraction(value) > 0
    except (ValueError, ZeroDivisionError):
        return False


def differences(wanted: Any, found: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, wanted and found of every leaf in which two JSON documents differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            inner = f"{name}.{key}" if name else key
            if key in wanted and key in found:
                yield from differences(wanted[key], found[key], inner)
            else:
                left, right = (reprlib.repr(side[key]) if key in side else "absent" for side in (wanted, found))
                yield inner, left, right
    elif wanted != found:
        yield name, reprlib.repr(wanted), reprlib.repr(found)
