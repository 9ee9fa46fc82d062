"""`vaeport port`: what it refuses, what it checks, and what it tells; whole ports are in tests/port/test_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vaeport.models.wan
from tests.cli.run import here as run
from tests.port.packets import PARITY
from tests.port.states import dumped
from vaeport.port.store import PortStore


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a.py:VAE",), "no family"),
        (("--family", "wan"), "no official source"),
        (("a.py:VAE", "--family", "Wan 2"), "not snake_case"),
        (("a.py:VAE", "--family", "wan"), "no such official source"),
        (("nowhere.at_all:VAE", "--family", "wan"), "neither a file nor a module"),
        (("a.py:VAE", "--family", "wan", "--args", "{"), "--args is not JSON"),
        (("a.py:VAE", "--family", "wan", "--args", "none.json"), "cannot be read"),
        (("a.py:VAE", "--family", "wan", "--args", "[1]"), "must be a JSON object"),
        (("a.py:VAE", "--family", "wan", "--stub", "torchaudio"), "what stands in"),
        (("a.py:VAE", "--family", "wan", "--until", "later"), "no such step"),
        (("a.py:VAE", "--family", "wan", "--weights", "none.pth"), "no such checkpoint"),
        (("--family", "wan", "--status"), "no such port"),
    ],
)
def test_a_wrong_request_is_told_in_words(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = run("port", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_packet_is_checked(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    text = PARITY
    good.write_text(text)
    bad.write_text(text.replace("coverage_scope: both", "coverage_scope: everything"))
    assert run("port", "--check", good).code == 0
    done = run("port", "--check", bad, "--json")
    assert done.code == 1
    assert json.loads(done.stdout)[0]["rule"]


def test_a_model_file_is_checked(tmp_path: Path) -> None:
    source = Path(str(vaeport.models.wan.__file__))
    assert run("port", "--check", source).code == 0
    file = tmp_path / "wan.py"
    file.write_text("import diffusers\n" + source.read_text().replace("EntryClass = Wan", ""))
    done = run("port", "--check", file)
    assert done.code == 1
    assert "diffusers" in done.stdout
    assert "EntryClass" in done.stdout


@pytest.mark.parametrize(("outcome", "leftovers"), [("fail", ("stray ports/newvid_vae/trace.jsonl: x",)), ("pass", ())])
def test_the_status_says_what_the_cleanup_gate_found(outcome: str, leftovers: tuple[str, ...], tmp_path: Path) -> None:
    state = dumped().update(cleanup={"outcome": outcome, "leftovers": leftovers})
    with PortStore(tmp_path / "ports" / "port_state.json") as store:
        store.load()
        store.save(state)
    done = run("port", "--family", "newvid", "--status", "--into", "ports", cwd=tmp_path)
    assert done.code == 0, done.stderr
    told = done.stdout.partition("  cleanup ")[2].splitlines()
    assert told[0].split()[0] == outcome
    assert [line.strip() for line in told[1:] if line.startswith("    ")] == list(leftovers)
