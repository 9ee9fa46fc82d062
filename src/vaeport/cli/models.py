"""`vaeport models`: the library as a table."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
) -> None:
    """List the native VAEs, their published configurations and latent contracts."""
    table = rows()
    if as_json:
        print(json.dumps(table, indent=2))
        return
    columns = list(table[0])
    cells = [columns, *([str(row[c]) for c in columns] for row in table)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    if markdown:
        lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |" for line in cells]
        lines.insert(1, f"| {' | '.join('-' * w for w in widths)} |")
    print("\n".join(lines))


def rows() -> list[dict[str, Any]]:
    """One row per published configuration."""
    import torch

    from vaeport.registry import ModelRegistry

    table = []
    for registration in ModelRegistry.registrations():
        model = registration.model
        for variant, arch in model.variants.items():
            contract = model.contract_of(arch)
            with torch.device("meta"):
                parameters = sum(p.numel() for p in model(arch).parameters())
            per_axis = " x ".join(f"{a.multiple}" for a in contract.axes)
            table.append(
                {
                    "model": registration.name,
                    "variant": variant,
                    "modality": contract.modality,
                    "latent channels": contract.latent_channels,
                    "compression": per_axis,
                    "parameters": f"{parameters / 1e6:.1f} M",
                    "published as": arch.class_names[0],
                    "layouts": ", ".join(layout.name for layout in registration.layouts),
                }
            )
    return table
