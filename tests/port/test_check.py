"""Right packets pass; every rule has a file that breaks it and no other; no file ends in a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.port.packets import DIGEST, HATCH, RIGHT
from tests.port.states import HOME, finished
from vaeport.errors import ConfigError
from vaeport.port.check import check_packet, check_text
from vaeport.port.contracts.rules import RULES
from vaeport.port.contracts.yaml_text import parse_yaml
from vaeport.port.views.catalog import VIEWS

TOKEN = "hf_" + "aB3dE5fG7hJ9kL1m"
DROPS = "dropped: loss.logvar (training only)"
EXCLUDED = "strict_load: pass_with_documented_exclusions"
SEARCHED = "unknown (searched rg -l 'class .*VAE' NewVid)"
KEEP = "    - keep it -> two more days\n"
REF = "official_ref_dir"
LAX = "production_loader_strictness: non_strict_with_allowed_keys"

# Rule, packet, what stands in the right packet, what breaks it, the place that is told.
BREAKS = [
    ("missing-field", "component_context", "  component: vae\n", "", "component"),
    ("missing-field", "component_context", "    strict_load: not_run\n", "", "conversion.strict_load"),
    ("missing-field", "conversion_request", None, "components: []\n", "components"),
    ("unknown-field", "component_context", "  mode:", "  moode: x\n  mode:", "moode"),
    ("allowed-values", "component_context", "mode: prototype", "mode: scaffold", "mode"),
    ("allowed-values", "component_context", "strict_load: not_run", "strict_load: maybe", "conversion.strict_load"),
    ("allowed-values", "port_state", "status: in_progress", "status: awaiting", "current_phase.status"),
    ("allowed-values", "conversion_retry_request", "suspected_fix: split", "suspected_fix: guess", "suspected_fix"),
    ("wrong-form", "component_context", "model_family: newvid", "model_family: New Vid", "model_family"),
    ("wrong-form", "component_context", "library: diffusers", "library: keras", "conversion.model_index_library"),
    ("token-value", "component_context", "norm eps differs", f"use {TOKEN}", "concerns_or_unknowns.0"),
    ("token-value", "port_state", "- variant: base", f"- variant: {TOKEN}", "summary.variant"),
    ("token-value", "component_skill_handoff", "component: vae", f"component: vae  # {TOKEN}", "line 1"),
    ("machine-path", "component_context", "norm eps differs", f"see {HOME}/x", "concerns_or_unknowns.0"),
    (
        "machine-path",
        "port_state",
        "official_ref_dir: NewVid",
        f"official_ref_dir: {HOME}/x",
        "summary.official_ref_dir",
    ),
    ("large-text", "component_context", "norm eps differs", "x" * 20_001, "concerns_or_unknowns.0"),
    ("plain-text", "component_context", "- norm eps differs between the two official forks", '- "a\\u0007b"', None),
    (
        "unknown-path",
        "component_context",
        "unknown (searched rg -l 'class .*VAE' NewVid)",
        "unknown",
        "official_ref_dir",
    ),
    ("unfilled", "component_context", "newvid/build.py", "<TODO>", "official_instantiation_files.0.path"),
    ("unfilled", "port_state", "- phase: Phase 4", "- phase: `<TODO: phase>`", "current_phase.phase"),
    ("unknown-path", "component_context", "script: not_created", "script: unknown", "conversion.script"),
    ("unknown-path", "component_context", "path: newvid/vae.py", "path: unknown", "official_definition_files.0.path"),
    ("relative-path", "component_context", "parity_test: tests", "parity_test: /opt/tests", "parity_test"),
    ("relative-path", "component_context", "parity_test: tests", "parity_test: ../tests", "parity_test"),
    ("work-starts", "component_context", "    - path: newvid/vae.py\n      symbols: Encoder, Decoder\n", None, None),
    ("scaffold-only", "component_context", "fastvideo: planned", "fastvideo: b.json", "conversion.script"),
    ("vae-packet", "component_context", "  weights: NewVid_VAE.pth\n", "", "weights"),
    ("key-dumps", "prototype", "fastvideo: a_native.json", "fastvideo: planned", "prototype_key_dumps.native"),
    ("key-dumps", "conversion_request", "keys: a_native.json", "keys: unknown", "components.0.native_keys"),
    ("prototype-end", "prototype", "status: scaffold_skip", "status: debug_red", "parity_status"),
    ("prototype-end", "prototype", "next_step: phase_5_conversion", "next_step: phase_6_continue", "next_step"),
    ("pass-only", "component_skill_handoff", "status: non_skip_pass", "status: scaffold_skip", "parity_status"),
    ("pass-only", "component_skill_handoff", "status: non_skip_pass", "status: debug_red", "parity_status"),
    ("pass-only", "component_skill_handoff", "strict_load: pass", "strict_load: not_run", "strict_load"),
    ("pass-result", "component_skill_handoff", "4 passed", "3 passed, 1 skipped", "pytest_output"),
    ("pass-result", "component_skill_handoff", "4 passed", "4 collected", "pytest_output"),
    ("verdict-hash", "component_skill_handoff", f"; verdict sha256 {DIGEST}", "", "pytest_output"),
    ("verdict-hash", "parity_status", "status: scaffold_skip", "status: non_skip_pass", "component_parity.0.status"),
    ("status-cause", "parity_status", "fastvideo_class, converted_weights", "none", "component_parity.0.missing"),
    ("status-cause", "prototype", "next_step: phase_5_conversion", "next_step: blocked", "blocker"),
    (
        "status-cause",
        "conversion_handoff",
        "\nstrict_load: pass_with_documented_exclusions",
        "\nstrict_load: blocked",
        None,
    ),
    (
        "cleanup-gate",
        "component_skill_handoff",
        "concerns_or_unknowns: none",
        'concerns_or_unknowns: "[cleanup-gate] FAIL"',
        "concerns_or_unknowns",
    ),
    ("retry-request", "component_skill_handoff", "phase_6_continue", "phase_5_conversion_retry", None),
    ("conversion-edited", "component_skill_handoff", "[fastvideo/models", "[converted_weights/x", "files_changed"),
    ("allowed-keys", "component_context", "production_loader_strictness: strict", LAX, "conversion.mapping_notes"),
    (
        "allowed-keys",
        "component_skill_handoff",
        "concerns_or_unknowns: none",
        'concerns_or_unknowns: "allowed keys: a (b)"',
        None,
    ),
    ("named-drops", "conversion_handoff", DROPS, "some were dropped", None),
    ("named-drops", "conversion_handoff", DROPS, "dropped: loss.logvar", None),
    (
        "named-drops",
        "component_skill_handoff",
        "strict_load: pass",
        "strict_load: pass_with_documented_exclusions",
        None,
    ),
    ("ask-user", "prototype", "next_step: phase_5_conversion", "next_step: ask_user", "escape_hatch"),
    ("ask-user", "asking", "next_step: ask_user", "next_step: blocked", "next_step"),
    ("ask-user", "parity_status", "escape_hatch: none\n", HATCH, "escape_hatch"),
    ("hatch-row", "asking", "evidence: E001,", "evidence:", "escape_hatch.state_snapshot.evidence"),
    ("hatch-question", "escape_hatch", "training uses?", "training uses? And which eps?", "question"),
    (
        "hatch-options",
        "escape_hatch",
        "    - keep it -> two more days\n",
        "    - a -> b\n    - c -> d\n    - e -> f\n",
        "options",
    ),
    ("hatch-options", "escape_hatch", "keep it -> two more days", "keep it", "options.0"),
    ("row-ids", "port_state", "\n## Issues", "| Q001 | Again? | a | b | open | |\n\n## Issues", "open_questions"),
    ("row-resolution", "port_state", "1e-6, as the checkpoint's config says", "", "open_questions.0.resolution"),
    ("missing-section", "port_state", "## Decisions", "## Choices", "decisions"),
    ("missing-section", "port_state", "## Handoff Notes", "## Hints", "handoff_notes"),
]
# Questions that the workflow answers itself, and how they may not be dressed up.
NEVER = [
    ("ambiguity", "Where is the missing module flash_attn?"),
    ("blocker", "No module named 'newvid', what now?"),
    ("dependency", "The folder of the weights is not found, which is it?"),
    ("blocker", "The parity test is skipped, is that fine?"),
    ("ambiguity", "The parity test is red at decoder.mid, what should be done?"),
    ("blocker", "There are unexpected keys, shall the mapping be changed?"),
    ("cost", "The strict load fails at q.weight, what now?"),
    ("blocker", "Shapes mismatch in conv_in, why?"),
    ("scope", "Ruff complains about the model file, what now?"),
    ("blocker", "The decoder raises a TypeError, how should that bug be mended?"),
]
MAY = [
    ("scope", "Shall the port drop the audio modality?"),
    ("scope", "May a new loader bucket be added for this VAE?"),
    ("dependency", "May einops become a dependency, though its import is missing here?"),
    ("auth", "The repository is gated: can you grant access and set HF_TOKEN?"),
    ("cost", "May 40 GB of weights be downloaded?"),
    ("destructive", "May the files in converted_weights be overwritten?"),
    ("ambiguity", "Two official definitions are incompatible in eps: which one counts?"),
    ("blocker", "Shall the red parity test be accepted with a looser tolerance?"),
]


def rules(text: str, path: Path | None = None) -> set[str]:
    return {item.rule for item in check_text(text, path)}


@pytest.mark.parametrize("name", RIGHT)
def test_right_packets_pass(name: str, tmp_path: Path) -> None:
    file = tmp_path / "packet.md"
    file.write_text(RIGHT[name], encoding="utf-8-sig")
    assert check_packet(file) == []
    if name != "port_state":
        assert check_text(f"# Notes\n\n```yaml\n{RIGHT[name]}```\n") == []
        assert check_text(json.dumps(parse_yaml(RIGHT[name])[0])) == []


def broken(rule: str, name: str, old: str | None, new: str | None) -> str:
    text = RIGHT[name]
    if rule == "work-starts":
        start, end = text.index("    - path: newvid/vae.py"), text.index("  official_instantiation_files")
        return text[:start].removesuffix("\n") + " []\n" + text[end:]
    if rule == "scaffold-only":
        text = text.replace("mode: prototype", "mode: parity-debug").replace("dir: not_created", "dir: a/vae")
    if old is None:
        return text[: text.index("components:")] + str(new)
    if "allowed keys" in str(new):
        text = text.replace("production_loader_strictness: strict", LAX)
    assert old in text
    return text.replace(old, str(new), 1)


@pytest.mark.parametrize(("rule", "name", "old", "new", "where"), BREAKS)
def test_each_rule_is_broken_alone(rule: str, name: str, old: str | None, new: str | None, where: str | None) -> None:
    found = check_text(broken(rule, name, old, new))
    assert {item.rule for item in found} == {rule}, found
    assert all(item.what == RULES[rule] and item.fix for item in found)
    if where is not None:
        assert any(item.where in (where, f"{item.where.split('.')[0]}.{where}") for item in found), found


def test_every_rule_has_a_file_that_breaks_it() -> None:
    elsewhere = {"hatch-matter", "file-form", "unknown-contract"}  # further down
    of_the_record = {"step-evidence", "reuse-evidence", "rows-stay"}  # test_state.py
    assert {rule for rule, *_ in BREAKS} | elsewhere | of_the_record == set(RULES)


@pytest.mark.parametrize(("kind", "question"), NEVER)
def test_questions_that_are_never_asked(kind: str, question: str) -> None:
    assert rules(asked(kind, question)) == {"hatch-matter"}


@pytest.mark.parametrize(("kind", "question"), MAY)
def test_questions_that_may_be_asked(kind: str, question: str) -> None:
    assert rules(asked(kind, question)) == set()


def asked(kind: str, question: str) -> str:
    text = HATCH.replace("decision_type: scope", f"decision_type: {kind}")
    return text.replace(
        "question: Shall the port drop the encode path, which only training uses?", f"question: {json.dumps(question)}"
    )


def test_all_findings_are_told_at_once() -> None:
    text = (
        RIGHT["component_skill_handoff"].replace("mode: parity-debug", "mode: nowhere").replace("4 passed", "1 skipped")
    )
    text = text.replace("readme_updated: yes\n", "").replace("blocker: none", f"blocker: {TOKEN}")
    assert rules(text) == {"allowed-values", "pass-result", "missing-field", "token-value"}


def test_tokens_are_told_without_their_value_and_digests_are_none(tmp_path: Path) -> None:
    file = tmp_path / "packet.yaml"
    file.write_text(RIGHT["component_context"].replace("norm eps differs", f"Bearer {TOKEN}"))
    (found,) = check_packet(file)
    assert TOKEN not in str(found)
    assert "environment variable" in found.fix
    harmless = f"sha256 {DIGEST}, secret=$HF_TOKEN, token=HF_TOKEN_OF_PORT, tokenizer=Qwen2.5-7B-Instruct"
    assert check_text(RIGHT["component_context"].replace("norm eps differs", harmless)) == []


def test_the_state_file_must_hold_the_row(tmp_path: Path) -> None:
    packet, state = tmp_path / "notes" / "p.yaml", tmp_path / "tests/local_tests/newvid/PORT_STATUS.md"
    packet.parent.mkdir()
    state.parent.mkdir(parents=True)
    packet.write_text(RIGHT["asking"])
    state.write_text(RIGHT["port_state"])
    assert check_packet(packet) == []
    state.write_text(RIGHT["port_state"].replace("| pending | |", "| resolved | keep it |"))
    assert [item.rule for item in check_packet(packet)] == ["hatch-row"]
    state.write_text(RIGHT["port_state"].replace("E001", "E002"))
    assert [item.rule for item in check_packet(packet)] == ["hatch-row"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"a\0b", "binary"),
        (b"model_family: \xff\xfe", "not UTF-8"),
        (b"a: [1, 2", "expected"),
        (b"a: 1\na: 2\n", "twice"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"- a\n- b\n", "list"),
        (b"just words", "str"),
        (b"# a comment alone\n", "NoneType"),
        (b"a: !!python/object/apply:os.system ['touch ran']\n", "python/object"),
        (b"a: !!python/name:os.system\n", "python/name"),
        (b"[" * 5000, ""),
        (b'{"a": ' * 5000, ""),
        (b"? {a: b}\n: c\n", ""),
        (b"a: " + b"9" * 5000, ""),
        (b"a: \x07", ""),
    ],
)
@pytest.mark.parametrize("name", ["p.yaml", "p.json", "p.md"])
def test_files_that_are_no_packets(
    raw: bytes, says: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(raw)
    found = check_packet(tmp_path / name)
    assert found
    assert {item.rule for item in found} <= {"file-form", "unknown-contract", "plain-text"}
    if name != "p.json":
        assert says in str(found[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no packet here"):
        check_packet(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        check_packet(tmp_path)
    file = tmp_path / "huge.yaml"
    file.write_bytes(b"a" * 1_000_001)
    assert [item.rule for item in check_packet(file)] == ["large-text"]
    assert rules("colour: red\nsize: 3\n") == {"unknown-contract"}
    assert rules("# Z Port Status\n\n| Scope | Result |\n|---|---|\n") >= {"missing-section"}
    assert rules("component_context: 3\nescape_hatch: {}\n") >= {"wrong-form", "missing-field"}
    assert rules(RIGHT["prototype"].replace("hatch: none", "hatch: ask")) == {"wrong-form"}
    both = RIGHT["escape_hatch"] + RIGHT["conversion_retry_request"].replace("split", "guess")
    assert [item.where for item in check_text(both)] == ["conversion_retry_request.suspected_fix"]
    assert [item.where for item in check_text(RIGHT["escape_hatch"] + "---\n" + both)] == [
        "conversion_retry_request.suspected_fix"
    ]


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"conversion_retry_request"}))
def test_what_the_views_write_is_right(name: str) -> None:
    view = VIEWS[name].from_state(finished())
    assert check_text(view.to_yaml()) == []
    assert check_text(view.to_json()) == []
    assert check_text(finished().to_json()) == []


@given(st.sampled_from(sorted(RIGHT)), st.integers(0, 3000), st.integers(0, 40), st.text(max_size=8))
@settings(max_examples=150)
def test_damaged_packets_end_in_findings(name: str, start: int, length: int, new: str) -> None:
    text = RIGHT[name]
    for item in check_text(text[:start] + new + text[start + length :]):
        assert item.rule in RULES
        assert str(item)
