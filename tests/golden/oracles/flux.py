"""Black Forest Labs flux: AutoEncoder of FLUX.1, which normalises the latent itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ..record import Record
from .base import Official, Oracle

CONFIGS = "src/flux/util.py"
MODEL = "flux-dev"


class Flux1(Oracle):
    """The autoencoder that FLUX.1 [dev] and [schnell] share."""

    name = "flux1"
    repo = "black-forest-labs/flux"
    published_file = "ae.safetensors"
    import_root = "src"
    taps = (
        *("encoder.conv_in", "encoder.down.?.block.1", "encoder.down.?.downsample", "encoder.conv_out"),
        *("decoder.conv_in", "decoder.up.?.block.2", "decoder.up.?.upsample", "decoder.conv_out"),
        *("*coder.mid.*_?", "*coder.norm_out"),
    )

    def build(self, root: Path) -> Official:
        from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams

        arguments = published_arguments((root / CONFIGS).read_text("utf-8"), MODEL)
        model = AutoEncoder(AutoEncoderParams(**arguments))
        config = f"{CONFIGS}: configs[{MODEL!r}].ae_params"
        return Official(model, "flux.modules.autoencoder.AutoEncoder", {"config": config, **arguments})

    def run(self, official: Official, record: Record) -> None:
        model = official.model
        x = record.media("encode.x", (2, 3, 40, 56))
        with record.running("encode") as seen:
            latent = model.encode(x)
        record.output("encode.moments", seen["encoder.conv_out"], "encoder(x): mean, then logvar, along channels")
        record.output("encode.latent", latent, "encode(x) = 0.3611 * (mean - 0.1159), sample_z False")

        odd = record.media("encode_44x52.x", (1, 3, 44, 52))
        record.output("encode_44x52.moments", model.encoder(odd), "as encode.moments; H/8 and W/8 are floored")

        z = record.latent("decode.z", (2, 16, 5, 7))
        with record.running("decode"):
            record.output("decode.image", model.decode(z), "decode(z) = decoder(z / 0.3611 + 0.1159), not clamped")
        raw = record.latent("decode_raw.z", (1, 16, 3, 5))
        record.output("decode_raw.image", model.decoder(raw), "decoder(z), z not normalised, not clamped")


def published_arguments(source: str, model: str) -> dict[str, Any]:
    """Read the arguments of AutoEncoderParams from the table of configurations, whose module has side effects."""
    (table,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "configs"
        and isinstance(node.value, ast.Dict)
    ]
    (spec,) = [value for key, value in zip(table.keys, table.values, strict=True) if ast.literal_eval(key) == model]
    (params,) = [keyword.value for keyword in spec.keywords if keyword.arg == "ae_params"]
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in params.keywords}
