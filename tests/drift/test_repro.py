"""The folder that shows a difference: it fails until the source is mended, is small, and is the same every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests import narrow
from tests.drift.broken_ports import EPS, FAULTS, LEAN, STATE, options_of
from tests.drift.launcher import launched
from vaeport.drift import repro
from vaeport.drift.explain import explain
from vaeport.drift.explanation import Explanation
from vaeport.drift.replay import errors, opened
from vaeport.drift.repro import MOST_BYTES, require_free, write_repro
from vaeport.drift.repro_case import mended, smallest
from vaeport.drift.shrink import Setting, template
from vaeport.errors import BlockedError, InputError, ProofError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.proof.cases import cases_of
from vaeport.proof.gates import SAME_FUNCTION
from vaeport.proof.prove import Proof
from vaeport.proof.setup import proof_of

ROOT = Path(__file__).resolve().parents[2]
FILES = {"repro.py", "case.json", "reference.safetensors", "README.md"}


def ran(script: Path, *arguments: str, path: str = "") -> tuple[int, str]:
    """Exit status and what was printed, without the reference, from another folder."""
    status, out, err = launched(script, *arguments, path=path)
    assert "Traceback" not in err, err
    return status, out


def said_of(proof: Proof, **options: Any) -> Explanation:
    """What is said of both sides on few and small inputs."""
    _, shortest, odd = cases_of(template(proof).contract)
    return explain(proof, cases=(odd, shortest), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (name in ("two", "stream"))) for name in FAULTS]
)
def test_it_fails_until_the_source_is_mended(name: str, sources: Path, tmp_path: Path) -> None:
    fault = FAULTS[name]
    file = sources / f"a_port_{name}.py"
    fault.write(file)
    options = options_of(fault, tmp_path / "made", f"a_port_{name}:Broken", LEAN[fault.model].to_published())
    script = write_repro(options, said_of(proof_of(**options)), tmp_path / "repro", tries=1)
    found = contents(script.parent)
    assert set(found) == FILES
    assert sum(map(len, found.values())) < 200_000 < MOST_BYTES
    status, said = ran(script, "--path", str(sources))
    assert (status, said.count("\n")) == (1, 1), said
    assert said.startswith(fault.says)
    assert said.rstrip().endswith("limit 1e-10")
    assert float(said.split()[-3].rstrip(",")) > 1e-9
    fault.mend(file)
    status, said = ran(script, "--path", str(sources))
    assert (status, said.count("\n")) == (0, 1), said
    machine = (str(tmp_path), str(ROOT), Path.home().name + "/")
    for content in found.values():
        assert not any(place.encode() in content for place in machine)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    """What is said of the port that the next fixture writes."""
    folder = tmp_path_factory.mktemp("said")
    EPS.write(folder / "port_that_is_explained.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return said_of(proof_of(**options_of(EPS, folder / "made", "port_that_is_explained:Broken")))


@pytest.fixture
def port(said: Explanation, sources: Path, tmp_path: Path) -> tuple[dict[str, Any], Explanation]:
    """Options of both sides, of which the native one has a wrong eps, and what is said of them."""
    name = f"port_{hash_of(tmp_path)}"
    EPS.write(sources / f"{name}.py")
    return options_of(EPS, tmp_path / "made", f"{name}:Broken"), said


def hash_of(path: Path) -> str:
    """Every test imports a module of its own."""
    return "".join(c for c in path.name if c.isalnum())


def test_the_same_input_gives_the_same_files(port: Any, tmp_path: Path) -> None:
    one, other = (write_repro(*port, tmp_path / name, tries=1).parent for name in ("one", "other"))
    assert contents(one) == contents(other)


def test_it_is_smaller_than_what_it_was_made_from(port: Any, tmp_path: Path) -> None:
    options, answer = port
    folder = write_repro(options, answer, tmp_path / "repro", tries=2).parent
    case = json.loads((folder / "case.json").read_text("utf-8"))
    tensors = load_file(folder / "reference.safetensors")
    assert max(case["config"]["block_out_channels"]) < max(narrow.KL.block_out_channels)
    assert case["config"]["layers_per_block"] == 1 < narrow.KL.layers_per_block
    assert case["config"]["latent_channels"] < narrow.KL.latent_channels
    assert tensors["media"].shape == (1, 3, 8, 8)
    assert tensors["unit.in.0"].shape == (1, case["config"]["block_out_channels"][0], 8, 8)


def test_what_is_too_large_is_cut_to_the_unit(
    port: Any, tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_repro(*port, tmp_path / "whole", tries=0)
    size = sum(map(len, contents(whole.parent).values()))
    monkeypatch.setattr(repro, "MOST_BYTES", size - 500)
    cut = write_repro(*port, tmp_path / "cut", tries=0)
    assert sum(map(len, contents(cut.parent).values())) < size - 500
    kept = set(load_file(cut.parent / "reference.safetensors"))
    assert kept == {"media", "latent", "unit.in.0", "unit.out.0"}
    assert "left out" in (cut.parent / "README.md").read_text("utf-8")
    assert ran(cut, path=str(sources))[0] == 1
    EPS.mend(next(sources.glob("port_*.py")))
    assert ran(cut, path=str(sources))[0] == 0
    monkeypatch.setattr(repro, "MOST_BYTES", 5_000)
    with pytest.raises(InputError, match="too large") as refused:
        write_repro(*port, tmp_path / "none", tries=0)
    assert "with the unit alone" in str(refused.value)
    assert not (tmp_path / "none").exists()


def test_the_unit_is_judged_on_the_references_input(port: Any, tmp_path: Path) -> None:
    folder = write_repro(*port, tmp_path / "repro", tries=0).parent
    case = json.loads((folder / "case.json").read_text("utf-8"))
    tensors = load_file(folder / "reference.safetensors")
    vae = opened(case, "autoencoder_kl")
    assert max(dict(errors(vae, case, tensors)).values()) <= SAME_FUNCTION
    vae.get_submodule("decoder.conv_in").bias.add_(1.0)
    found = dict(errors(vae, case, tensors))
    assert found["decoder.norm_out"] <= SAME_FUNCTION < found["decode decoded"]
    assert vae.get_submodule("decoder.norm_out")._forward_hooks == {}


def test_what_a_fix_counts_in_a_unit_is_the_units_own(port: Any, tmp_path: Path) -> None:
    """Fixes may change the n-th operation between hooks; what is put into the unit is none of them."""
    folder = write_repro(*port, tmp_path / "repro", tries=0).parent
    case = json.loads((folder / "case.json").read_text("utf-8"))
    tensors = load_file(folder / "reference.safetensors")
    vae, mode, entered = opened(case, "autoencoder_kl"), Names(), []

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        entered.append(args[0])
        mode.__enter__()

    norm = vae.get_submodule("decoder.norm_out")
    norm.register_forward_pre_hook(enter)
    norm.register_forward_hook(lambda *_: mode.__exit__(None, None, None), prepend=True)
    assert dict(errors(vae, case, tensors))["decoder.norm_out"] <= SAME_FUNCTION
    assert torch.equal(entered[0], tensors["unit.in.0"])
    assert "clone" not in mode.seen
    assert "group_norm" in mode.seen


class Names(TorchFunctionMode):
    """The functions that are called within."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def test_a_folder_in_use_stays_as_it_is(port: Any, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="holds something"):
        write_repro(*port, used)
    assert contents(used) == {"notes": b"mine"}


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="cannot be read"):
        require_free(tmp_path / ("x" * 300))


def test_what_is_no_tensor_differs_infinitely() -> None:
    vae = nn.Module.to(narrow.drawn("autoencoder_kl"), torch.float64)
    vae.normalize = lambda mean: None  # type: ignore[assignment, method-assign, return-value]
    (_, shortest, _) = cases_of(vae.contract)
    media, latent = shortest.inputs(0)
    tensors = {"media": media, "latent": latent, "encode.normalized": latent}
    found = dict(errors(vae, {"unit": "", "normalized": False}, tensors))
    assert set(found.values()) == {float("inf")}
    assert next(iter(found)).startswith("encode raises AttributeError: ")


def test_a_change_that_cannot_be_made_is_told(port: Any) -> None:
    options, answer = port

    def absent(vae: Any) -> None:
        vae.get_submodule("decoder.somewhere_else")

    proof = proof_of(**options)
    findings = [replace(answer.findings[0], apply=absent)]
    setting = Setting(narrow.KL, proof, Explanation(findings), 0, None)
    with pytest.raises(ProofError, match="cannot be made") as error:
        mended(template(proof), setting)
    assert str(error.value.found).startswith("AttributeError: ")
    assert error.value.where == "decoder.norm_out"


def test_a_class_that_cannot_be_built_anew_is_told(port: Any, sources: Path) -> None:
    options, answer = port
    proof = proof_of(**options)
    (source,) = sources.glob("port_*.py")
    anew = sources / f"un{source.name}"
    anew.write_text(source.read_text("utf-8").replace("eps=1e-5)", "eps=1e-5, no_such=1)"), "utf-8")
    setting = Setting(narrow.KL, proof, answer, 0, None)
    with pytest.raises(ProofError, match="cannot be built and loaded") as error:
        smallest(setting, f"{anew}:Broken")
    assert "no_such" in str(error.value.found)


def test_no_difference_no_script(tmp_path: Path) -> None:
    options = {"reference": "diffusers:AutoencoderKL", "native": "autoencoder_kl", "variant": "sd1"}
    with pytest.raises(InputError, match="both sides agree"):
        write_repro(options, Explanation(), tmp_path / "repro")
    with pytest.raises(InputError, match="no place"):
        write_repro(options, Explanation(explained=False), tmp_path / "repro")
    assert not (tmp_path / "repro").exists()


def test_a_fault_that_is_not_in_the_source_is_refused(tmp_path: Path) -> None:
    def wrong(**options: Any) -> Proof:
        proof = proof_of(**options)
        right = proof.native.open

        def opened(path: Path) -> Any:
            vae = right(path)
            vae.get_submodule("decoder.norm_out").eps = 1e-5
            return vae

        proof.native.open = opened
        return proof

    options = options_of(EPS, tmp_path / "made", "autoencoder_kl", LEAN["kl"].to_published())
    with pytest.raises(InputError, match="imported anew"):
        write_repro(options, said_of(wrong(**options)), tmp_path / "repro", proof=wrong, tries=0)


def test_an_unexplained_difference_is_shown_as_well(port: Any, tmp_path: Path, sources: Path) -> None:
    options, _ = port
    answer = said_of(proof_of(**options), seconds=0.0)
    assert answer.findings[0].cause is None, "the search has to end before it finds anything"
    script = write_repro(options, answer, tmp_path / "repro", tries=0)
    assert ran(script, path=str(sources))[0] == 1
    assert "still differ" in (script.parent / "README.md").read_text("utf-8")


def test_a_source_file_is_found_by_its_path_in_its_package(tmp_path: Path) -> None:
    package = tmp_path / "their" / "some_models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a whole application')\n", "utf-8")
    file = package / "a_file_port.py"
    EPS.write(file)
    options = options_of(EPS, tmp_path / "made", f"{file}:Broken")
    script = write_repro(options, said_of(proof_of(**options)), tmp_path / "repro", tries=0)
    case = json.loads((script.parent / "case.json").read_text("utf-8"))
    assert case["native"] == "some_models/a_file_port.py:Broken"
    assert ran(script, "--path", str(tmp_path / "their"))[0] == 1
    EPS.mend(file)
    assert ran(script, "--path", str(tmp_path / "their"))[0] == 0
    assert ran(script) == (2, ""), "without a path to it, it cannot be told"


def test_what_a_run_leaves_behind_shows_in_the_second(sources: Path, tmp_path: Path) -> None:
    STATE.write(sources / "a_counting_port.py")
    options = options_of(STATE, tmp_path / "made", "a_counting_port:Broken")
    folder = write_repro(options, said_of(proof_of(**options)), tmp_path / "repro", tries=0).parent
    case = json.loads((folder / "case.json").read_text("utf-8"))
    tensors = {n: t for n, t in load_file(folder / "reference.safetensors").items() if not n.startswith("unit.")}
    found = dict(errors(opened(case, case["native"]), case, tensors))
    assert {name for name, error in found.items() if error > SAME_FUNCTION} == {
        "decode unclamped, second run",
        "decode decoded, second run",
    }


def test_published_weights_are_replaced_by_drawn_ones(port: Any, tmp_path: Path) -> None:
    options, answer = port
    narrow.reference(narrow.KL).save_pretrained(tmp_path / "weights")
    options["weights"] = tmp_path / "weights"
    script = write_repro(options, answer, tmp_path / "repro", tries=0)
    assert ran(script, path=str(tmp_path / "sources"))[0] == 1


def test_a_reference_with_arguments_of_its_own(port: Any, sources: Path, tmp_path: Path) -> None:
    (sources / "their_own.py").write_text(
        "from diffusers import AutoencoderKL\n\n\n"
        "class Theirs(AutoencoderKL):\n"
        "    def __init__(self, ddconfig, embed_dim):\n"
        "        widths = tuple(ddconfig['ch'] * m for m in ddconfig['ch_mult'])\n"
        "        levels = len(widths)\n"
        "        super().__init__(\n"
        "            block_out_channels=widths, layers_per_block=ddconfig['num_res_blocks'],\n"
        "            latent_channels=embed_dim, norm_num_groups=ddconfig['groups'],\n"
        "            down_block_types=('DownEncoderBlock2D',) * levels,\n"
        "            up_block_types=('UpDecoderBlock2D',) * levels,\n"
        "        )\n",
        "utf-8",
    )
    options, _ = port
    options["reference"] = "their_own:Theirs"
    ddconfig = {"ch": 16, "ch_mult": [1, 1, 2, 2], "num_res_blocks": 2, "groups": 8}
    options["reference_args"] = {"ddconfig": ddconfig, "embed_dim": 4}
    folder = write_repro(options, said_of(proof_of(**options)), tmp_path / "repro").parent
    case = json.loads((folder / "case.json").read_text("utf-8"))
    assert max(case["config"]["block_out_channels"]) < max(narrow.KL.block_out_channels), case["config"]
    assert ran(folder / "repro.py", path=str(sources))[0] == 1


@pytest.mark.full
def test_from_the_full_width(sources: Path, tmp_path: Path) -> None:
    file = sources / "a_wide_port.py"
    EPS.write(file)
    config = AutoencoderKL.variants["sd1"].to_published()
    options = options_of(EPS, tmp_path / "made", "a_wide_port:Broken", config)
    script = write_repro(options, said_of(proof_of(**options)), tmp_path / "repro", tries=2)
    assert sum(map(len, contents(script.parent).values())) < 100_000
    case = json.loads((script.parent / "case.json").read_text("utf-8"))
    assert max(case["config"]["block_out_channels"]) <= 16
    assert ran(script, "--path", str(sources))[0] == 1
    EPS.mend(file)
    assert ran(script, "--path", str(sources))[0] == 0
