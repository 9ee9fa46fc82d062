"""The README of a script that shows a difference."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vaeport.drift.explanation import Explanation, Finding
from vaeport.drift.repro_case import Stored
from vaeport.drift.shrink import Setting
from vaeport.proof.gates import SAME_FUNCTION

_TEXT = """\
# `{native}` differs from `{reference}`

{said}

## Run

    python repro.py{path}

It needs vaeport and torch, not the reference. {where}

It prints one line: what differs first, its relative rms error in the worst slice, and the limit, {limit:.0e}. The exit
status is 1 as long as both sides differ, and 0 once the native source is mended.

## What is compared

{compared}

The model has {weights} weights, drawn from seed {seed}; media {media}, latent {latent}. `case.json` holds the
configuration and how the weights are drawn, `reference.safetensors` the inputs and what the reference gave, in float64.

## What was found in the model that this was made from

{found}

{explained}
"""


def readme(stored: Stored, setting: Setting, explanation: Explanation) -> str:
    """What the script shows, how to run it, what is known of the cause; with no path of this machine."""
    case, native, package = stored.case, stored.case["native"], stored.case["reference"].split(":")[0].split(".")[0]
    compared = ["- whole `encode` and `decode`, as users run them, with the reference's outputs"]
    if stored.cut:
        compared = ["Whole `encode` and `decode` are left out: with their outputs the folder would be too large."]
    if "unit.in.0" in stored.tensors:
        compared.insert(0, f"- `{case['unit']}` alone, on the reference's own input, with the reference's output")
    elif case["unit"]:
        compared.append(f"\n`{case['unit']}` alone is left out: its calls do not answer to the reference's one by one.")
    where = "The native class is the installed vaeport's own."
    if ":" in native:
        place = native.rpartition(":")[0]
        where = (
            f"FOLDER holds `{place if place.endswith('.py') else place.partition('.')[0]}`; PYTHONPATH does as well."
        )
    return _TEXT.format(
        native=native,
        reference=case["reference"],
        said=_said(setting.answer.findings[0], package),
        path=" --path FOLDER" if ":" in native else "",
        where=where,
        limit=SAME_FUNCTION,
        compared="\n".join(compared),
        weights=setting.weights,
        seed=case["seed"],
        media=list(stored.tensors["media"].shape),
        latent=list(stored.tensors["latent"].shape),
        found="\n".join(f"- {_said(finding, package)}" for finding in explanation.findings),
        explained="With these changes both sides compute the same function."
        if explanation.explained
        else "Both sides still differ with these changes, so there is more to find.",
    )


def _said(finding: Finding, package: str) -> str:
    where = "" if finding.where == "inside" else f" ({finding.where})"
    module = f"`{finding.module or 'vae'}`: " if finding.module != finding.unit else ""
    at = f"At `{finding.unit}`" if finding.unit else "In the VAE's own steps"
    native, reference = (_shown(place, package) for place in finding.places)
    error = f"relative error {finding.error:.1e}"
    return f"{at}{where}, {native} / {reference}, {error}: {module}{_shown(finding.change, package)}."


def _shown(text: str, package: str) -> str:
    """Files of vaeport and of the reference's package as they are, of others the name alone."""

    def short(found: re.Match[str]) -> str:
        path = PurePosixPath(found[0])
        return found[0] if path.parts[0] in ("vaeport", package) else path.name

    return re.sub(r"[^\s()]+\.py(?=:\d)", short, text)
