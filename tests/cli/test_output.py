"""`--format`: the same result for people, agents and programs; and completion in the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run import here
from vaeport.cli.output import AGENTS, Format, printed

RESULT = {
    "rows": [{"name": "a", "size": 1}, {"name": "b\tc\nd", "more": [1, 2]}],
    "empty": [],
    "deep": {"x": {"y": 0.5}},
}
PLAN = ("plan", "64x64", "--model", "autoencoder_kl", "--variant", "sd1")


def test_agents_get_lines_and_tables_without_alignment() -> None:
    assert printed(RESULT, ["for people"], Format.AGENT).splitlines() == [
        "rows:",
        "name\tsize\tmore",
        "a\t1\tnull",
        "b c d\tnull\t[1, 2]",
        "empty=[]",
        "deep.x.y=0.5",
    ]
    assert printed([{"a": 1}], [], Format.AGENT) == "a\n1"
    assert printed([], [], Format.AGENT) == "value=[]"


@pytest.mark.parametrize("name", AGENTS)
def test_auto_asks_who_runs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in AGENTS:
        monkeypatch.delenv(other, raising=False)
    assert printed(RESULT, ["for", "people"], Format.AUTO) == "for\npeople"
    monkeypatch.setenv(name, "some-agent")
    assert printed(RESULT, ["for people"], Format.AUTO) == printed(RESULT, [], Format.AGENT)
    assert printed(RESULT, ["for people"], Format.HUMAN) == "for people"


def test_a_verb_prints_in_every_format() -> None:
    told = json.loads(here("models", "--json").stdout)
    assert told == json.loads(here("models", "--format", "json").stdout)
    agent = here("models", "--format", "agent").stdout
    assert [line.split("\t")[1] for line in agent.splitlines()] == ["variant", *(row["variant"] for row in told)]
    assert agent == here("models", AI_AGENT="some-agent").stdout
    assert agent != here("models").stdout


def test_two_formats_are_refused() -> None:
    done = here(*PLAN, "--json", "--format", "agent")
    assert done.code == 2
    assert "two formats are asked for" in done.stderr


def test_the_shell_completes_verbs_and_options() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_VAEPORT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        program = Path(sys.executable).with_name("vaeport")  # the shell asks the command under its own name
        return subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True).stdout.split()

    assert completed("vaeport enc") == ["encode"]
    assert "--budget" in completed("vaeport plan --b")
