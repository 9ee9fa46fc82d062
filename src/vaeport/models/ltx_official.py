"""The official configurations of LTX-Video and LTX-2, which list blocks, in the fields of the Diffusers ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vaeport.errors import ConfigError

_KINDS = {"compress_space": "spatial", "compress_time": "temporal", "compress_all": "spatiotemporal"}


@dataclass
class _Run:
    """Residual blocks of one width; in the encoder the way behind them, in the decoder that before them."""

    width: int
    blocks: int
    kind: str | None = None
    factor: int = 1
    residual: bool = False
    noise: bool = False


def official_fields(config: Mapping[str, Any], *, base: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the encoder and of the decoder, from `encoder_blocks` and `decoder_blocks` (or `blocks` for both).

    block_out_channels has the middle's width at its end; base is the encoder's first width.
    Raises ConfigError for blocks and options that the published models do not have.
    """
    for key, wanted in {
        "dims": 3,
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "use_quant_conv": False,
        "normalize_latent_channels": False,
    }.items():
        if config.get(key, wanted) != wanted:
            raise ConfigError(f"`{key}` has a value that is not supported", expected=wanted, found=config[key])
    outer = config.get("decoder_base_channels", 128)
    for key, width in (("the encoder's first width", base), ("`decoder_base_channels`", outer)):
        if not _is_count(width):
            raise ConfigError(f"{key} must be a positive number", found=repr(width))
    down = list(_down(_blocks(config, "encoder_blocks"), base))
    up = list(_up(_blocks(config, "decoder_blocks"), outer))
    shared = {
        key: config[key] for key in ("in_channels", "out_channels", "latent_channels", "patch_size") if key in config
    }
    encoder = {
        "block_out_channels": [run.width for run in down],
        "layers_per_block": [run.blocks for run in down],
        "downsample_type": [run.kind or "conv" for run in down[:-1]],
        "spatio_temporal_scaling": [run.kind is not None for run in down[:-1]],
    }
    decoder = {
        "decoder_block_out_channels": [run.width * run.factor for run in up[:0:-1]],
        "decoder_layers_per_block": [run.blocks for run in up[::-1]],
        "decoder_spatio_temporal_scaling": [run.kind is not None for run in up[:0:-1]],
        "decoder_inject_noise": [run.noise for run in up[::-1]],
        "upsample_residual": [run.residual for run in up[:0:-1]],
        "upsample_factor": [run.factor for run in up[:0:-1]],
        "upsample_type": [run.kind or "spatiotemporal" for run in up[1:]],
        "decoder_causal": config.get("causal_decoder", False),
    }
    return {**shared, **encoder}, decoder


def block_names(config: Mapping[str, Any]) -> set[str]:
    """Kinds of blocks in the encoder, as far as they can be read."""
    found = config.get("encoder_blocks", config.get("blocks"))
    rows = found if isinstance(found, list) else []
    return {row[0] for row in rows if isinstance(row, list) and row and isinstance(row[0], str)}


def _blocks(config: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    found = config.get(name, config.get("blocks"))
    rows = [_block(row) for row in found] if isinstance(found, list) else []
    if not rows or None in rows:
        raise ConfigError(f"`{name}` must list blocks", expected='[["res_x", {"num_layers": 4}], ...]', found=found)
    return [row for row in rows if row is not None]


def _block(row: Any) -> tuple[str, dict[str, Any]] | None:
    """A kind and its arguments; None if that is not what the row holds."""
    if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
        return None
    name, given = row[0], {"num_layers": row[1]} if _is_count(row[1]) else row[1]
    counts = ("num_layers", "multiplier")
    sound = isinstance(given, dict) and all(_is_count(given[key]) for key in counts if key in given)
    return (name, given) if sound and (name != "res_x" or "num_layers" in given) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _down(blocks: list[tuple[str, dict[str, Any]]], width: int) -> Iterator[_Run]:
    """From the video inwards: blocks, a way, perhaps a widening block."""
    run: _Run | None = None
    for name, given in blocks:
        kind = _KINDS.get(name.removesuffix("_res"))
        if name == "res_x":
            if run is not None:
                yield run
            run = _Run(width, given["num_layers"])
        elif run is not None and run.kind is None and (name == "compress_all" or (kind and name.endswith("_res"))):
            run.kind = kind if name.endswith("_res") else "conv"
            width *= given.get("multiplier", 2) if name.endswith("_res") else 1
        elif run is not None and run.kind == "conv" and name == "res_x_y":
            width *= given.get("multiplier", 2)
        else:
            raise _unsupported("encoder_blocks", name, given)
    if run is None or run.kind is not None:
        raise ConfigError("encoder_blocks must end with res_x", found=blocks)
    yield run


def _up(blocks: list[tuple[str, dict[str, Any]]], base: int) -> Iterator[_Run]:
    """From the latent outwards, the reverse of the list: perhaps a narrowing block, a way, blocks."""
    factors = dict.fromkeys(_KINDS, 1) | {"res_x_y": 2}
    width = base
    for name, given in blocks:
        width *= given.get("multiplier", factors[name]) if name in factors else 1
    way = _Run(width, 0)
    for name, given in reversed(blocks):
        noise = given.get("inject_noise", False)
        if name == "res_x":
            yield _Run(width, given["num_layers"], way.kind, way.factor, way.residual, noise)
            way = _Run(width, 0)
        elif name in _KINDS and way.kind is None:
            way.kind, way.factor = _KINDS[name], given.get("multiplier", 1)
            way.residual = given.get("residual", False)
            width //= way.factor
        elif name == "res_x_y" and way.kind is None and not noise:
            width //= given.get("multiplier", 2)
        else:
            raise _unsupported("decoder_blocks", name, given)


def _unsupported(where: str, name: str, given: Mapping[str, Any]) -> ConfigError:
    return ConfigError(
        f"`{name}` at this place is not supported",
        where=where,
        found=dict(given),
        fix="port it as an architecture of its own",
    )
