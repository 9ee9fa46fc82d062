"""`vaeport models`: the library as a table."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaeport.cli.output import Show, with_output


@with_output
def command(
    show: Show,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/models.md.")] = False,
    published: Annotated[bool, typer.Option("--published", help="Where weights are, with the proof on them.")] = False,
) -> None:
    """List the native VAEs: their configurations, latents, layouts, streaming and proofs, or where weights are."""
    table = repositories() if published else rows()
    columns = list(table[0])
    cells = [columns, *([str(row[c]) for c in columns] for row in table)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    if markdown:
        lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |" for line in cells]
        lines.insert(1, f"| {' | '.join('-' * w for w in widths)} |")
    show(table, lines)


def rows() -> list[dict[str, Any]]:
    """One row per published configuration."""
    import torch

    from vaeport.published import proofs
    from vaeport.registry import ModelRegistry

    table = []
    for registration in ModelRegistry.registrations():
        model = registration.model
        for variant, arch in model.variants.items():
            contract = model.contract_of(arch)
            with torch.device("meta"):
                vae = model(arch)
            proved = proofs().get(variant)
            table.append(
                {
                    "model": registration.name,
                    "variant": variant,
                    "modality": contract.modality,
                    "latent channels": contract.latent_channels,
                    "compression": " x ".join(f"{a.multiple}" for a in contract.axes),
                    "parameters": f"{sum(p.numel() for p in vae.parameters()) / 1e6:.1f} M",
                    "streaming": vae.streaming,
                    "full-width proof": "not run" if proved is None else f"{proved['gates']} ({proved['dtypes']})",
                    "layouts": ", ".join(layout.name for layout in registration.layouts),
                }
            )
    return table


def repositories() -> list[dict[str, Any]]:
    """One row per published repository."""
    from vaeport.published import REPOSITORIES
    from vaeport.registry import ModelRegistry

    return [
        {
            "variant": variant,
            "published in": "/".join(filter(None, (place.name, place.subfolder, place.filename))),
            "proof on these weights (not run here)": f"`{place.command(r.name, variant, arch.class_names[0])}`",
        }
        for r in ModelRegistry.registrations()
        for variant, arch in r.model.variants.items()
        for place in REPOSITORIES[variant]
    ]
