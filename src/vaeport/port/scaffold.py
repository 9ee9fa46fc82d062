"""Files around a port: the parity test, its run, the views, and where a native model is written."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.port.contracts.fields import unknown
from vaeport.port.contracts.text import tidy
from vaeport.port.pytest_plugin import plugin_arguments
from vaeport.port.request import Request
from vaeport.port.state import PortState
from vaeport.port.views.catalog import VIEWS
from vaeport.port.views.port_status import PortStatus
from vaeport.port.views.readme import readme
from vaeport.registry import Registration

SAYS = {
    "context": "where everything lies",
    "official": "importing, dumping keys, probing the contract by running it",
    "reuse": "comparing with every native model",
    "prototype": "instantiating the native side",
    "map": "deriving the weight map from data flow, proving it on drawn weights",
    "convert": "converting the checkpoint, loading it strictly",
    "parity": "running the parity test",
    "handoff": "writing the hand-over",
}
_TEST = '''"""Parity of the {family} {component} with its official implementation; written by `vaeport port`.

pytest {test} -v -s --no-skip
"""

from __future__ import annotations

from collections.abc import Callable

from vaeport.port.parity import Parity

PARITY = Parity(
{fields})


def test_{family}_{component}_parity(parity: Callable[[Parity], None]) -> None:
    parity(PARITY)
'''


def write_test(request: Request, state: PortState, arch: Mapping[str, Any] | str, weight_map: str | None) -> None:
    """Writes the parity test; it names no path of this machine."""
    name = f"{request.family}_{request.component}".upper()
    held: Any = state.contract["convention"]
    place, _, cls = request.reference.rpartition(":")
    if place.endswith(".py"):
        place = request.portable(place, f"{name}_OFFICIAL")
    fields: dict[str, Any] = {
        "family": request.family,
        "component": request.component,
        "native": request.native or (state.target.name if arch else request.family),
        "arch": arch,
        "native_args": dict(request.native_arguments) or None,
        "reference": f"{place}:{cls}",
        "reference_args": json.loads(json.dumps(dict(request.arguments), default=str)),
        "convention": {key: value for key, value in held.items() if value},
        "weights": request.portable(request.weights, f"{name}_WEIGHTS") if request.weights else None,
        "prefix": request.prefix,
        "converted": request.converted if request.weights else None,
        "weight_map": f"{request.home}/{weight_map}" if weight_map else None,
        "flow": f"{request.home}/official_flow.json",
        "coverage_scope": "both",
        "dtypes": tuple(request.dtypes),
    }
    rows = "".join(
        f"    {key}={_python(value, 4, len(key) + 6)},\n" for key, value in fields.items() if value not in (None, "")
    )
    file = request.root / request.test
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_TEST.format(family=request.family, component=request.component, test=request.test, fields=rows))


def _python(value: Any, indent: int, used: int) -> str:
    """A value as formatted source: on one line if it fits, else an item a line; `used` columns are taken already."""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{json.dumps(k)}: {_python(v, 0, 0)}" for k, v in value.items()) + "}"
    elif isinstance(value, list | tuple):
        items = ", ".join(_python(v, 0, 0) for v in value)
        text = f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if len(text) + used < 118 or not isinstance(value, dict | list | tuple) or not value or not indent:
        return text
    inner, outer = " " * (indent + 4), " " * indent
    rows = (
        [f"{json.dumps(k)}: {_python(v, indent + 4, indent + len(k) + 8)}" for k, v in value.items()]
        if isinstance(value, dict)
        else [_python(v, indent + 4, indent + 4) for v in value]
    )
    return text[0] + "\n" + "".join(f"{inner}{row},\n" for row in rows) + outer + text[-1]


def run_test(request: Request, env: Mapping[str, str]) -> dict[str, Any]:
    """Runs the parity test as anybody would, with --no-skip; fields of the record's `parity`."""
    report = request.path("parity.json")
    report.unlink(missing_ok=True)
    command = f"pytest {request.test} -v -s --no-skip"
    options = [
        *plugin_arguments(),
        "-p",
        "no:cacheprovider",
        f"--rootdir={request.root}",
        "--parity-json",
        str(report.resolve()),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", request.test, "-v", "-s", "--no-skip", *options],
        cwd=request.root,
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    request.path("parity.log").write_text(tidy(done.stdout + done.stderr, 200_000) + "\n")
    if not report.exists():
        return {
            "status": "blocked",
            "missing": ["pytest"],
            "command": command,
            "result": tidy(done.stdout + done.stderr, 600),
        }
    (row,) = json.loads(report.read_text())
    result = re.findall(r"=+ (.*(?:passed|failed|skipped|error).*) =+", done.stdout)
    status: dict[str, Any] = {
        "status": row["status"],
        "missing": row["missing"],
        "coverage_scope": row["coverage_scope"],
        "command": command,
        "result": tidy(result[-1] if result else row["status"], 300),
    }
    if row["status"] == "blocked" and not row["missing"]:
        status["missing"] = ["see parity.log"]
    if row.get("verdict"):
        place = Path(row["verdict"])
        status["verdict"] = f"{request.home}/{place.name}"
        status["verdict_sha256"] = row["verdict_sha256"]
    return status


def target_of(registration: Registration, arch: VAEArchConfig, root: Path) -> dict[str, Any]:
    """Where the native class is written."""
    model = registration.model
    file = Path(inspect.getfile(model))

    def place(path: Path) -> str:
        try:
            return str(path.resolve().relative_to(root.resolve()))
        except ValueError:
            parts = path.parts
            start = len(parts) - 1 - parts[::-1].index("vaeport") if "vaeport" in parts else len(parts) - 2
            return "/".join(parts[start:])

    weights = file.parent.parent / "weights" / file.name
    return {
        "name": registration.name,
        "import_path": model.__module__,
        "class_name": model.__name__,
        "model": place(file),
        "config": place(Path(inspect.getfile(type(arch)))),
        "weight_map": place(weights)
        if weights.exists()
        else unknown("the map is derived; see weight_map.py of the port"),
    }


def write_views(request: Request, state: PortState) -> list[str]:
    """Writes every view that the record is far enough for; returns the files."""
    written = []

    def write(path: str, text: str) -> None:
        file = request.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        written.append(path)

    for name, view in VIEWS.items():
        if name in ("port_state", "escape_hatch"):
            continue
        try:
            write(f"{request.home}/{name}.yaml", view.from_state(state).to_yaml())
        except ConfigError:
            continue  # the record says what is missing for it
    write(state.status_file, PortStatus.from_state(state).to_markdown())
    write(state.readme, readme(state))
    return written
