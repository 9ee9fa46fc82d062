"""Options and helpers that several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vaeport.vae import VAE

VAEOption = Annotated[str, typer.Option("--vae", help="Component folder, official weight file, or hub id.")]
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


def opened(vae: str, **options: Any) -> VAE:
    """The VAE that the shared options name."""
    from vaeport.runtime.load import load

    return load(vae, **options)


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
