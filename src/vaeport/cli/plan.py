"""`vaeport plan`: how an input runs exactly within a memory budget, and what that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaeport.cli.common import BudgetOption, Opener, with_vae_options
from vaeport.cli.output import Show, with_output
from vaeport.errors import InputError

if TYPE_CHECKING:
    from vaeport.runtime.plan import Half


@with_output
@with_vae_options
def command(
    show: Show,
    size: Annotated[str, typer.Argument(help="Media: 4096x4096, 81x720x1280, 60s; or a latent file to be decoded.")],
    vae: Opener | None = None,
    encode: Annotated[bool, typer.Option("--encode", help="Plan the encoder; otherwise the decoder.")] = False,
    budget: BudgetOption = None,
    ranks: Annotated[int, typer.Option(min=1, help="Devices that share the work (torchrun).")] = 1,
    out_given: Annotated[
        bool, typer.Option("--out-given", help="The result has memory of its own, and takes none of the budget.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="How many clips, images or recordings at once.")] = 1,
    compare: Annotated[
        bool, typer.Option("--compare", help="Carry it out, and say how far published tilings are from it.")
    ] = False,
) -> None:
    """Say how an input runs exactly: whole, in pieces of time or in bands of rows, and the memory and time that takes.

    Without --vae no weights are read: --model and --variant name a published configuration.
    """
    from vaeport.media import read_latents
    from vaeport.runtime.compare import compare as compared
    from vaeport.runtime.files import as_decoded
    from vaeport.runtime.parallel import bytes_of
    from vaeport.runtime.planner import Planner
    from vaeport.runtime.sizes import example, shape_of

    assert vae is not None
    half: Half = "encoder" if encode else "decoder"
    loaded = vae()
    if compare and loaded.config.pretrained_path is None:
        raise InputError("--compare runs the VAE, so it needs weights", fix="give --vae")
    latents = as_decoded(loaded, *read_latents(size)) if size.endswith(".safetensors") and not encode else None
    shape = shape_of(size, loaded.contract, half, batch) if latents is None else tuple(latents.shape)
    planner = Planner(loaded, half, shape, out_given=out_given, ranks=ranks)
    plan = planner.plan(None if budget is None else bytes_of(budget))
    found = (
        list(compared(loaded, example(loaded, shape) if latents is None else latents, half, plan)) if compare else []
    )
    show({**plan.to_json(), "tilings": [d.to_json() for d in found]}, [*plan.lines(), *(d.line for d in found)])
