"""The agent skill: sound by the format's own validator, true to the command line, and shipped."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from skills_ref import read_properties, validate

from tests.cli.run import vaeport
from vaeport.port.contracts.fields import ParityState, ReuseVerdict

ROOT = Path(__file__).parent.parent
SKILL = ROOT / "skills" / "port-vae"
TEXT = (SKILL / "SKILL.md").read_text()


def test_the_format_is_valid() -> None:
    assert validate(SKILL) == []
    assert read_properties(SKILL).name == "port-vae"


def test_every_option_exists() -> None:
    known = vaeport("port", "--help").stdout
    asked = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--no-skip"}
    assert asked
    assert {option for option in asked if option not in known} == set()


@pytest.mark.parametrize("words", [ParityState, ReuseVerdict])
def test_the_words_are_those_of_the_record(words: object) -> None:
    assert all(f"`{word}`" in TEXT for word in words.__args__ if word != "not_run")  # type: ignore[attr-defined]


def test_it_stands_alone_and_ships() -> None:
    assert not re.search(r"\]\((?!https?://)", TEXT), "a link leads out of the skill"
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"skills/port-vae": "vaeport/skills/port-vae"}
