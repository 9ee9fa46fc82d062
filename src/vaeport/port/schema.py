"""JSON Schemas of the record and of its views; `python -m vaeport.port.schema` writes them beside this module."""

from __future__ import annotations

import json
from pathlib import Path

from vaeport.port.contracts.record import Record
from vaeport.port.state import PortState
from vaeport.port.views.catalog import VIEWS

FOLDER = Path(__file__).with_name("schemas")


def schemas() -> dict[str, str]:
    """File name and text of every schema."""
    kinds: dict[str, type[Record]] = {"port_record": PortState, **VIEWS}
    return {f"{name}.json": json.dumps(kind.model_json_schema(), indent=2) + "\n" for name, kind in kinds.items()}


def main() -> None:
    """Write all schemas."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
