"""What a probe and a reuse proof mean in words: concerns, and the order to write a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vaeport.mapping.flow import Flow, Use
from vaeport.port.request import Request
from vaeport.port.reuse import ReuseProof

_AT_REST = {"stride": 1, "padding": 0, "dilation": 1, "transposed": False, "output_padding": 0, "groups": 1}


def concerns_of(contract: Mapping[str, Any], stubs: Sequence[str]) -> list[str]:
    """Everything about an official implementation that a porter must not overlook."""
    return list(_concerns(contract, stubs))


def _concerns(contract: Mapping[str, Any], stubs: Sequence[str]) -> Iterator[str]:
    if stubs:
        yield f"modules that the source imports are missing and were stubbed: {', '.join(stubs)}; calling one raises"
    if contract["samples_by_itself"]:
        yield "encode samples the posterior by itself; parity compares its mean (noise zero) and deviation (noise one)"
    if not contract["posterior"].startswith("gaussian"):
        yield f"posterior: {contract['posterior']}"
    if contract["moments_order"] == "unknown":
        yield "the order of the moments could not be seen; only what encode gives is compared"
    inside = contract["normalization"]
    if inside["where"] == "inside":
        numbers = f"(z - {_short(inside['shift'])}) * {_short(inside['scale'])}"
        yield f"encode gives and decode takes normalised latents: {numbers}"
    else:
        yield "the class applies no latent normalisation; its caller does, or nobody"
    for axis in contract["axes"]:
        if not axis["rule_held"]:
            yield f"axis {axis['name']}: no rule of the form a + b k holds: {json.dumps(axis['lengths'])}"
        refused = [n for n, said in axis["lengths"].items() if said.startswith("refused")]
        if refused:
            yield f"axis {axis['name']}: lengths {', '.join(refused)} fail: {axis['lengths'][refused[0]]}"
    if not contract["decode"]["deterministic"]:
        yield "decode gives other values when it is called again"
    if contract["decode"]["clamp"] is None:
        yield "decode does not clamp"
    for name in contract["flags"]:
        yield f"flag {name} = {contract['flags'][name]}: parity holds for this value"
    if contract["unused_weights"]:
        yield f"weights that neither encode nor decode reads: {', '.join(contract['unused_weights'][:8])}"
    chunks = contract["chunks"]
    if chunks and len(set(chunks["encode"])) > 1:
        yield f"encode runs in pieces: the first layer sees {chunks['encode']} frames, padding included"


def _short(value: Any) -> str:
    return f"{len(value)} numbers, first {value[0]}" if isinstance(value, list) else str(value)


def _attributes(use: Use) -> str:
    """Attributes of an operation; of a convolution those that are not at rest."""
    rest = _AT_REST if "stride" in use.attributes else {}
    given = {name: set(v) if isinstance(v, list) else {v} for name, v in use.attributes.items()}
    return ", ".join(f"{name} {use.attributes[name]}" for name, v in given.items() if v != {rest.get(name)})


def to_write(request: Request, contract: Mapping[str, Any], flow: Flow, proof: ReuseProof) -> str:
    """The order to write a native model: everything known, the nearest relative, the difference to it."""
    nearest = proof.nearest
    lines = [
        f"# Write this model: {request.family}",
        "",
        f"`{request.reference.rpartition(':')[2]}` is none of the native models. Write",
        f"`src/vaeport/models/{request.family}.py` (arch config, encoder, decoder, contract, `EntryClass` last) with",
        "the words of `src/vaeport/layers/`, then run the same `vaeport port` command again: it goes on from here. The",
        "weight map is derived; nothing has to be written for it.",
        "",
        "## Exact arguments",
        "",
        "```json",
        json.dumps(request.arguments, indent=1, default=str),
        "```",
        "",
        "## Contract, as probed",
        "",
    ]
    lines += [f"- {key}: {json.dumps(contract[key])}" for key in ("modality", "layout", "channels", "latent_channels")]
    lines += [f"- axis {a['name']}: {a['rule']}; {json.dumps(a['lengths'])}" for a in contract["axes"]]
    lines += [f"- {key}: {json.dumps(contract[key])}" for key in ("posterior", "moments_order", "logvar_clamp")]
    lines += [f"- {key}: {json.dumps(contract[key])}" for key in ("normalization", "decode", "chunks", "flags")]
    lines += [
        f"- reach, {name}: input {r['input']} gives {r['outputs']}{', causal' * r['causal']}"
        for name, r in contract["reach"].items()
    ]
    lines += ["", "## Concerns", "", *(f"- {line}" for line in concerns_of(contract, ()))]
    lines += ["", "## Nearest relative", ""]
    lines += [
        f"{nearest.name}, {nearest.similarity:.0%} of the elements in weights of equal shape." if nearest else "None."
    ]
    lines += ["", *(f"- {line}" for line in proof.differences)]
    lines += ["", "Looked at:", "", *(f"- {line}" for line in proof.evidence)]
    lines += [
        "",
        "## Graph",
        "",
        "Every operation with weights, in the order of the calls: what it reads, its attributes, what lies before it.",
        "",
    ]
    lines += ["| operation | weights | shape | reads | attributes | after |", "| --- | --- | --- | --- | --- | --- |"]
    for use in flow.uses:
        reads = ", ".join(sorted({s.use if isinstance(s.use, str) else flow.uses[s.use].keys[0] for s in use.inputs}))
        shape = "x".join(map(str, use.operands[0].shape))
        cells = (use.operands[0].kind, ", ".join(use.keys), shape, reads, _attributes(use), ", ".join(use.trail))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
