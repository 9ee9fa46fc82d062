"""Make the golden captures: run official classes in float64 on drawn weights and store what they compute.

python -m tests.golden.capture [NAME ...] [--check] [--cache DIR] [--mirror OWNER/NAME=GITDIR ...]
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vaeport.errors import ProofError
from vaeport.proof.draw import draw_state

from .command import command
from .float64 import AttentionEntropy, Float64
from .load import FOLDER, fingerprint, load_golden
from .official import checkout, importable, source
from .oracles import ORACLES, Official, Oracle
from .record import Record

AGREEMENT = 1e-12  # rms of the difference between two correct evaluations, relative to the rms of the value


def capture(oracle: Oracle, root: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Run one oracle from its checkout; returns the tensors to store and their provenance.

    Raises ProofError when the case proves little: activations or attention are degenerate, or rounding is amplified.
    """
    origin = source(oracle.repo)
    with (
        importable(root / oracle.import_root, oracle.stand_ins),
        torch.no_grad(),
        contextlib.redirect_stdout(sys.stderr),
    ):
        official = oracle.build(root)
        layout = oracle.layout(official)
        state = draw_state(layout, oracle.seed, scale=oracle.scale)
        drawn = fingerprint(state)
        oracle.load(official, state)
        # The largest model fits beside neither its float32 weights nor those of a second model.
        del state
        official.model.double().eval()
        record, promoted, entropy = run(oracle, official, root)
        move_by_one_ulp(official.model)
        moved, _, _ = run(oracle, official, root)
    conditions = check_conditions(record, moved, entropy)
    provenance = {
        "repo": f"https://github.com/{origin.repo}",
        "commit": origin.commit,
        "files": dict(origin.files),
        "class": official.class_name,
        "arguments": dict(official.arguments),
        "stand_ins": sorted(oracle.stand_ins),
        "promoted_to_float64": sorted(promoted),
        "weights": {
            "published_file": oracle.published_file,
            "key_prefix": oracle.key_prefix,
            "seed": oracle.seed,
            "scale": oracle.scale,
            "fingerprint": drawn,
            "layout": layout,
        },
        "outputs": record.meanings,
        "taps": record.tapped,
        "conditions": conditions,
        "versions": {name: version(name) for name in ("torch", "numpy", *oracle.packages)},
    }
    tensors = {f"input.{name}": value.float() for name, value in record.inputs.items()}
    tensors |= {f"output.{name}": value for name, value in record.outputs.items()}
    tensors |= {f"tap.{name}": value for name, value in record.taps.items()}
    return tensors, provenance


def run(oracle: Oracle, official: Official, root: Path) -> tuple[Record, set[str], list[float]]:
    """Run the official model in float64."""
    record = Record(official.model, oracle.seed, oracle.taps)
    with AttentionEntropy() as attention, Float64(root) as float64:
        oracle.run(official, record)
    return record, float64.promoted, attention.shares


def move_by_one_ulp(model: torch.nn.Module) -> None:
    """Move every weight by one unit in the last place, up or down: what any other correct evaluation amounts to."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        up = torch.randint(0, 2, value.shape, generator=generator, dtype=torch.bool)
        value.copy_(torch.nextafter(value, torch.where(up, torch.inf, -torch.inf).to(value)))


def check_conditions(record: Record, moved: Record, entropy: list[float]) -> dict[str, Any]:
    """Measure what makes a case worth comparing, and refuse one that is not."""
    change = {name: difference(value, record.outputs[name]) for name, value in moved.outputs.items()}
    clamped = [
        float((value.abs() == 1).double().mean()) for name, value in record.outputs.items() if ".clamped" in name
    ]
    conditions = {
        "activation_rms": [min(record.rms.values()), max(record.rms.values())],
        "attention_entropy": [min(entropy), max(entropy)] if entropy else None,
        "clamped": max(clamped, default=None),
        "change_by_one_ulp": max(change.values()),
    }
    faults = [f"rms of {name} is {rms:.3g}" for name, rms in record.rms.items() if not 0.05 <= rms <= 20]
    faults += [f"attention entropy is {share:.2f} of uniform" for share in entropy if not 0.05 <= share <= 0.95]
    faults += [f"{share:.0%} of an output is clamped" for share in clamped if not 0 < share <= 0.1]
    faults += [f"{name} changes by {by:.1e} for one ulp" for name, by in change.items() if not by <= AGREEMENT]
    if faults:
        raise ProofError("a degenerate case", found="; ".join(faults))
    return conditions


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Rms of the difference, relative to the rms of `expected`."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def check(name: str, tensors: dict[str, torch.Tensor], provenance: dict[str, Any]) -> str:
    """Compare a new run with the committed capture; raises ProofError where they differ."""
    golden = load_golden(name)
    committed = {
        f"{part}.{key}": value
        for part in ("input", "output", "tap")
        for key, value in getattr(golden, part + "s").items()
    }
    if committed.keys() != tensors.keys():
        raise ProofError("other tensors than committed", where=name, found=sorted(committed.keys() ^ tensors.keys()))
    worst = max((difference(value.double(), committed[key]), key) for key, value in tensors.items())
    if not worst[0] <= AGREEMENT:
        raise ProofError(
            "a tensor differs from the committed one",
            where=f"{name}: {worst[1]}",
            expected=f"at most {AGREEMENT:.0e} of its rms",
            found=f"{worst[0]:.1e}",
        )
    for key in ("commit", "files", "class", "arguments", "weights", "promoted_to_float64"):
        if json.loads(json.dumps(provenance[key])) != golden.provenance[key]:
            raise ProofError(
                "the provenance differs from the committed one",
                where=f"{name}: {key}",
                expected=golden.provenance[key],
                found=provenance[key],
            )
    return f"agrees with the committed capture, worst {worst[0]:.1e} ({worst[1]})"


def make(name: str, cache: Path, mirrors: Mapping[str, Path], *, check_only: bool) -> str:
    """Capture one oracle and write it, or compare it with the committed capture; returns what there is to say."""
    start, oracle = time.monotonic(), ORACLES[name]
    root = checkout(source(oracle.repo), cache, mirrors.get(oracle.repo))
    tensors, provenance = capture(oracle, root)
    if check_only:
        verdict = check(name, tensors, provenance)
    else:
        path = FOLDER / f"{name}.safetensors"
        save_file(tensors, path, metadata={"provenance": json.dumps(provenance)})
        path.chmod(0o644)
        verdict = f"{path.stat().st_size / 1000:.0f} kB, {json.dumps(provenance['conditions'])}"
    return f"{verdict} ({time.monotonic() - start:.0f} s)"


if __name__ == "__main__":
    command(__doc__, ORACLES, make)
