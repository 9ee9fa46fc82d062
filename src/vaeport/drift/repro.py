"""`write_repro`: a difference as a folder that anyone can run, smaller than 1 MB, without the reference.

`repro.py` is `vaeport.drift.repro_script` as it stands; what it runs lies in `case.json` and `reference.safetensors`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vaeport.checkpoint.files import reading
from vaeport.drift import repro_script
from vaeport.drift.explanation import Explanation
from vaeport.drift.repro_case import smallest
from vaeport.drift.repro_text import readme
from vaeport.drift.shrink import MakeProof, Shrinking
from vaeport.errors import InputError
from vaeport.media.files import writing
from vaeport.proof.setup import proof_of

MOST_BYTES = 1_000_000
TRIES, SECONDS = 24, 240.0


def write_repro(
    options: Mapping[str, Any],
    explanation: Explanation,
    folder: Path,
    *,
    proof: MakeProof = proof_of,
    tries: int = TRIES,
    seconds: float = SECONDS,
) -> Path:
    """Writes `repro.py`, `case.json`, `reference.safetensors` and `README.md`; returns the path of the script.

    options         of both sides, as for `proof_of`
    explanation     what `explain` said of them; its first finding is what the script shows
    folder          new, or empty
    tries, seconds  for the search for a smaller configuration

    InputError if there is nothing to show, if the folder is in use, if the difference does not lie in the native
    source, or if the script would need 1 MB or more. Nothing is written then.
    """
    if not explanation.findings:
        what = "both sides agree" if explanation.explained else "both sides differ, but no place of it is known"
        raise InputError(f"{what}, so there is nothing to reproduce", found="no finding")
    if explanation.findings[0].gate != "S":
        raise InputError("only the types differ, which a script on one input does not show", found="gate D alone")
    require_free(folder)
    with tempfile.TemporaryDirectory(prefix="vaeport-repro-") as scratch:
        setting = Shrinking(options, explanation, proof, Path(scratch)).run(tries, seconds)
        stored = smallest(setting, options["native"])
    files, sizes = {}, []
    for one in (stored, stored.unit_alone()):
        files = {
            "case.json": _json(one.case).encode(),
            "reference.safetensors": save(dict(one.tensors)),
            "repro.py": Path(repro_script.__file__).read_bytes(),
            "README.md": readme(one, setting, explanation).encode(),
        }
        sizes.append(sum(map(len, files.values())))
        if sizes[-1] < MOST_BYTES:
            break
    else:
        raise InputError(
            "the smallest case that was found is too large; nothing was written",
            expected=f"under {MOST_BYTES} bytes",
            found=f"{sizes[0]} bytes, {sizes[1]} with the unit alone",
            fix="give a smaller configuration of both sides with --config",
        )
    with writing(folder, InputError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return folder / "repro.py"


def require_free(folder: Path) -> None:
    """InputError for a folder that holds something, or a name that cannot be a folder's. Writes nothing.

    BlockedError if the system does not let us look.
    """
    with reading(folder):
        held = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
        taken = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
    if held:
        found, fix = ", ".join(held[:3]), "name a new one"
        raise InputError("the folder holds something; nothing was written", where=folder, found=found, fix=fix)
    if taken is not None:
        raise InputError("no folder can be here; nothing was written", where=folder, found=f"{taken} is a file")


def _json(value: Any) -> str:
    """Indented, with lists of numbers on one line."""

    def flat(found: re.Match[str]) -> str:
        return f"[{', '.join(found[1].replace(',', ' ').split())}]"

    return re.sub(r"\[\n([^\[\]{}\"]*)\]", flat, json.dumps(value, indent=1)) + "\n"
