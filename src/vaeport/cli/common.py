"""Options and helpers that several verbs share."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from vaeport.errors import InputError

VAEOption = Annotated[
    str | None, typer.Option("--vae", help="Component folder, official weight file, or hub id; else a small one.")
]
SubfolderOption = Annotated[str | None, typer.Option(help="Subfolder of the VAE, e.g. vae.")]
ModelOption = Annotated[str | None, typer.Option(help="Native name, where the file cannot tell.")]
VariantOption = Annotated[
    str | None, typer.Option(help="Published configuration, where the file cannot tell, e.g. sdxl.")
]
WeightsOption = Annotated[str | None, typer.Option(help="Weight files of a folder, e.g. fp16.")]
FilenameOption = Annotated[str | None, typer.Option(help="Official file in the folder or hub repository.")]
RevisionOption = Annotated[str | None, typer.Option(help="Hub revision: branch, tag or commit.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16, ...; by default as stored.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, ...")]


TilingOption = Annotated[
    str | None, typer.Option(help="Run tile by tile as published code does, approximately: official, diffusers, ...")
]

GraphsOption = Annotated[
    bool, typer.Option("--graphs", help="Record what comes again as CUDA graphs, which keep memory; for busy hosts.")
]

BudgetOption = Annotated[
    str | None, typer.Option(help="Memory beside the weights, such as 4GiB, within which to run exactly.")
]

Opener = Callable[..., Any]
"""Opens the VAE that a command line names; takes further options of `load`."""


def opened(
    vae: VAEOption = None,
    subfolder: SubfolderOption = None,
    model: ModelOption = None,
    variant: VariantOption = None,
    weights_variant: WeightsOption = None,
    filename: FilenameOption = None,
    revision: RevisionOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = "cpu",
    tiling: TilingOption = None,
    graphs: GraphsOption = False,
    **further: Any,
) -> Any:
    """The VAE that the shared options name, or the one that comes with the package."""
    from vaeport.runtime.load import load

    if vae is None:
        say("no --vae is given: this is the small VAE that comes with vaeport")
    return load(
        vae,
        subfolder=subfolder,
        filename=filename,
        revision=revision,
        variant=weights_variant,
        model=model,
        model_variant=variant,
        dtype=dtype,
        device=device,
        tiling=tiling,
        graphs=graphs,
        **further,
    )


def without_weights(model: str | None, variant: str | None, dtype: str | None, device: str) -> Any:
    """A VAE of a published configuration, whose weights hold nothing."""
    import torch

    from vaeport.registry import ModelRegistry
    from vaeport.runtime.load import device_of, dtype_of

    if model is None or variant is None:
        raise InputError("which VAE?", expected="--vae, or --model and --variant of a published configuration")
    found = ModelRegistry.find(model).model
    if variant not in found.variants:
        expected = f"one of {', '.join(found.variants)}"
        raise InputError(f"{model} has no such variant", expected=expected, found=variant)
    with torch.device("meta"):
        vae = found(found.variants[variant]).to(dtype_of(dtype) or torch.float32)
    return vae.to_empty(device=device_of(device)).eval().requires_grad_(False)


def with_vae_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `vae`, an `Opener`, becomes the options of `opened`.

    If the parameter has a default, it opens a VAE without weights where --vae is left out.
    """
    hints = get_type_hints(opened, include_extras=True) | get_type_hints(command, include_extras=True)
    without = False
    shared = {n: p for n, p in inspect.signature(opened).parameters.items() if n != "further"}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name == "vae":
            without = parameter.default is not parameter.empty
            hints["vae"] = VAEOption
            parameters += shared.values()
        else:
            parameters.append(parameter)
    # what has a default comes last, as Python wants it; a command line does not mind
    parameters.sort(key=lambda p: p.default is not p.empty)

    def verb(**values: Any) -> None:
        named = {name: values.pop(name) for name in shared}
        if named["vae"] is None and without:
            told = {key: named[key] for key in ("model", "variant", "dtype", "device")}
            command(vae=partial(without_weights, **told), **values)
        else:
            command(vae=partial(opened, **named), **values)

    verb.__doc__ = command.__doc__
    verb.__annotations__ = {p.name: hints[p.name] for p in parameters}
    signature = inspect.Signature([p.replace(annotation=hints[p.name]) for p in parameters])
    vars(verb)["__signature__"] = signature
    return verb


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, shown on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def json_object(text: str, option: str) -> dict[str, Any]:
    """The object that an option gives, as JSON or as the name of a .json file; InputError otherwise."""
    where: object = option
    if text.endswith(".json"):
        where = Path(text)
        try:
            text = where.read_text()
        except OSError as error:
            raise InputError("the file cannot be read", where=where, found=error.strerror) from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{option} is not JSON", where=where, found=error, fix="write an object, or name a .json file"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{option} must be a JSON object", where=where, found=type(value).__name__)
    return value
