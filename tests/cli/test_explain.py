"""`vaeport prove --explain`: its repro, and a reference whose trace was made elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import narrow
from tests.cli.run import Done, here, vaeport
from tests.drift.broken_ports import EPS, PAD, Fault, options_of
from tests.drift.launcher import launched
from tests.drift.reference_traces import left_by_diffusers

SMALL = {"kl": narrow.KL.replace(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4), "wan": narrow.WAN}


def proved(fault: Fault, folder: Path, native: str, *more: str | Path, run: Callable[..., Done] = vaeport) -> Done:
    """`vaeport prove` of gate S, where the port's source lies in `folder`."""
    options = options_of(fault, folder / "made", native, SMALL[fault.model].to_published())
    named = ("--reference", options["reference"], "--native", native, "--config", options["config"], "--dtypes", "")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = run("prove", *named, *more, PYTHONPATH=path)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_repro_fails_until_the_source_is_mended(tmp_path: Path) -> None:
    source, repro = tmp_path / "eps_port.py", tmp_path / "deep" / "repro"
    EPS.write(source)
    done = proved(EPS, tmp_path, "eps_port:Broken", "--explain", "--repro", repro, "--json")
    assert done.code == 1
    told = json.loads(done.stdout)
    assert told["explanation"]["findings"][0]["change"] == "eps 1e-05 should be 1e-06"
    assert told["repro"] == str(repro / "repro.py")
    assert f"wrote {repro / 'repro.py'}" in done.stderr
    assert sum(file.stat().st_size for file in repro.iterdir()) < 100_000
    script = repro / "repro.py"
    assert subprocess.run([sys.executable, script, "--path", tmp_path], capture_output=True).returncode == 1
    EPS.mend(source)
    assert launched(script, "--path", str(tmp_path))[0] == 0
    status, _, told = launched(script)
    assert (status, f"fix: python {script} --path FOLDER" in told) == (2, True), "without the source it cannot be told"
    again = proved(EPS, tmp_path, "eps_port:Broken", "--explain", "--repro", tmp_path / "none")
    assert again.code == 0
    assert again.stderr == "nothing to explain, no repro: both sides agree\n"
    assert not (tmp_path / "none").exists()


def test_a_reference_that_ran_elsewhere_explains_another_port_here(tmp_path: Path) -> None:
    EPS.write(tmp_path / "first_port.py")
    (tmp_path / "second_port.py").write_text(
        "from first_port import Broken, GroupNorm\n\n\n"
        "class Other(Broken):\n"
        "    @staticmethod\n"
        "    def decoder_of(arch):\n"
        "        table = Broken.decoder_of(arch)\n"
        "        table.norm_out = GroupNorm(arch.block_out_channels[0], arch.norm_num_groups // 2, eps=1e-6)\n"
        "        return table\n"
    )
    kept = ("--capture", tmp_path / "kept")
    there = (*kept, "--reference-python", sys.executable)
    done = proved(EPS, tmp_path, "first_port:Broken", *there, "--explain")
    assert (done.code, "eps 1e-05 should be 1e-06; then gate S holds" in done.stdout) == (1, True), done.stdout
    (tmp_path / "diffusers.py").write_text("raise ImportError('not here')\n")
    done = proved(EPS, tmp_path, "second_port:Other", *kept, "--explain", "--repro", tmp_path / "repro")
    assert done.code == 1
    assert done.stdout.startswith("origin decoder.norm_out"), done.stdout + done.stderr
    assert "groups 2 should be 4; then gate S holds" in done.stdout
    assert "cannot import diffusers:AutoencoderKL" in done.stderr, "a repro needs the reference at a smaller size"
    assert not (tmp_path / "repro").exists()


def test_a_trace_of_a_reference_that_ran_elsewhere(tmp_path: Path) -> None:
    PAD.write(tmp_path / "pad_port.py")
    (tmp_path / "diffusers.py").write_text("raise ImportError('not here')\n")
    folder, trace = tmp_path / "traces", tmp_path / "reference.jsonl"
    options = ("--reference-trace", trace, "--trace", folder)
    done = proved(PAD, tmp_path, "pad_port:Broken", *options)
    assert (done.code, done.stdout) == (2, "")
    assert str(folder / "weights.diffusers.safetensors") in done.stderr
    left_by_diffusers(narrow.WAN, folder, trace)
    done = proved(PAD, tmp_path, "pad_port:Broken", *options)
    assert done.code == 1
    assert done.stdout.startswith("first difference: decoder.conv_out / decoder.conv_out out: ")
    assert len(done.stdout.splitlines()) < 10
    done = proved(PAD, tmp_path, "wan", *options, "--json")
    told = json.loads(done.stdout)
    assert (done.code, told["passed"], told["first"]) == (0, True, None)
    assert len(told["rows"]) > 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--repro", "new"), "give --explain too"),
        (("--explain", "--repro", "used"), "holds something; nothing was written"),
        (("--explain", "--repro", "used/notes"), "notes is a file"),
        (("--explain", "--repro", "used/notes/deeper"), "notes is a file"),
        (("--trace", "used/notes"), "a file has this name"),
        (("--explain", "--reference-trace", "used/notes"), "statistics alone"),
        (("--reference-trace", "used/notes", "--trace-tolerance", "2"), "not a tolerance"),
        (("--trace-tolerance", "0.1"), "give --reference-trace too"),
        (("--reference-trace", "absent.jsonl"), "no trace here"),
        (("--reference-trace", "used"), "a folder"),
        (("--reference-trace", "used/notes"), "not a line of an activation trace"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_runs(
    options: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes").write_text("mine\n")
    done = proved(EPS, tmp_path, "autoencoder_kl", *options, run=here)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
    assert (tmp_path / "used" / "notes").read_text() == "mine\n"
    assert {path.name for path in tmp_path.iterdir()} == {"used", "made"}
