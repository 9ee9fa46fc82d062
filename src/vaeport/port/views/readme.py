"""The family's README for a reviewer: what was ported, from where, how it was tested, and where the test is."""

from __future__ import annotations

import json

from vaeport.port.contracts.blocks import exclusion_lines
from vaeport.port.contracts.text import shown
from vaeport.port.state import PortState
from vaeport.port.views.tables import bullets, notes, table
from vaeport.port.views.view import blocker, concerns, pytest_output


def readme(state: PortState) -> str:
    """The text of the family's `README.md`."""
    source, held, parity, reuse = state.source, state.conversion, state.parity, state.reuse
    family, component = state.model_family, state.component
    files = [("defines", file.path, ", ".join(file.symbols), file.notes) for file in state.definition_files]
    files += [
        ("instantiates", file.path, ", ".join(file.symbols), _told(file.args)) for file in state.instantiation_files
    ]
    origin = {
        "official": shown(source.official_ref),
        "folder or import path": shown(source.official_ref_dir),
        "weights": f"{shown(source.weights)}, {state.weight_source.text()}",
        "revision": source.hf_revision,
        "layout": source.source_layout,
    }
    native = {
        "class": f"{state.target.import_path}:{state.target.class_name}",
        "files": ", ".join(state.target.files()),
        "reuse": " ".join(
            filter(None, (reuse.verdict, reuse.native, _told(reuse.arguments) if reuse.arguments else ""))
        ),
    }
    conversion = {
        "script": held.script,
        "component folder": held.converted_component_dir,
        "mapping": held.mapping_notes,
        "strict load": f"{held.strict_load} ({held.production_loader_strictness})",
    }
    tested = {
        "test": parity.test,
        "covers": parity.coverage_scope,
        "status": parity.status,
        "last run": pytest_output(state),
        "verdict": parity.verdict or "none",
        "blocker": blocker(state),
    }
    parts = [
        f"# {family}: parity of the {component}",
        f"The {state.modality} {_words(state)} of {family}, ported from its official implementation. "
        f"The state of the port is in `{state.status_file}`.",
        *("## Where it comes from", bullets(origin), table(("Role", "File", "Symbols", "Notes"), files)),
        *("## The native side", bullets(native)),
        *(("### Why", notes((*reuse.evidence, *reuse.differences))) if reuse.verdict != "not_run" else ()),
        *("## Conversion", bullets(conversion), notes(exclusion_lines(held.exclusions, held.allowed_keys))),
        *("## Parity", f"```bash\npytest {parity.test} -v -s\n```", bullets(tested)),
        *("## Stubs", table(("Module", "Reason"), [(stub.module, stub.reason) for stub in state.stubs])),
        *("## Concerns", notes(concerns(state))),
        *(("## Cleanup gate", notes(state.cleanup.lines())) if state.cleanup.lines() else ()),
    ]
    return "\n\n".join(parts) + "\n"


def _words(state: PortState) -> str:
    return state.component if state.component == state.component_type else f"{state.component} ({state.component_type})"


def _told(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
