"""The committed JSON Schemas are those of the models, accept what they write, and are in the wheel."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from tests.port.states import RETRY, finished
from vaeport.port.schema import FOLDER, schemas
from vaeport.port.views.catalog import VIEWS

ROOT = Path(__file__).resolve().parents[2]


def test_schemas_are_up_to_date() -> None:
    committed = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    assert committed == schemas(), "run `python -m vaeport.port.schema`"
    assert set(committed) == {f"{name}.json" for name in ("port_record", *VIEWS)}


def test_schemas_are_part_of_the_package() -> None:
    assert files("vaeport").joinpath("port/schemas/port_record.json").is_file()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/vaeport"]
    assert not wheel.keys() & {"include", "exclude", "only-include"}


@pytest.mark.parametrize("name", ["port_record", *VIEWS])
def test_schemas_have_the_fields_that_are_written(name: str) -> None:
    schema = json.loads(schemas()[f"{name}.json"])
    state = finished().with_row("retries", phase="parity", request=RETRY)
    data = state.plain() if name == "port_record" else VIEWS[name].from_state(state).plain()
    assert list(schema["properties"]) == list(data)
    assert set(schema.get("required", ())) <= set(data)
    assert schema["additionalProperties"] is False
