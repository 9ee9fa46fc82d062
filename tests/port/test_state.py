"""The record of a port: what it refuses, how it grows, and that nothing in it is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.port.states import FIELDS, HATCH, HOME, NOW, RETRY, dumped, finished, started
from vaeport.errors import ConfigError
from vaeport.port.contracts.fields import is_unknown, search_of, unknown
from vaeport.port.contracts.record import findings_in
from vaeport.port.contracts.text import is_high_entropy, problems, secrets, shown, tidy
from vaeport.port.state import PortState, new_state

LAX = {"production_loader_strictness": "non_strict_with_allowed_keys"}
SECRETS = [
    "hf_aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z",
    "sk-proj-aB3dE5fG7hJ9kL1m",
    "ghp_aB3dE5fG7hJ9kL1mN3pQ",
    "github_pat_11AB3dE5fG7hJ9kL1mN3pQ",
    "AKIA" + "ABCDEFGH12345678",
    "Bearer aB3dE5fG7hJ9kL1mN3pQ",
    "https://ann:s3cr3tpw@host/x",
    "export MY_TOKEN=aB3dE5fG7hJ9kL1m",
    '"password": "aB3dE5fG7hJ9kL1m"',
]


def rules(**changes: Any) -> set[str]:
    """The rules that the finished record breaks with these fields."""
    return broken(finished(), **changes)


def broken(state: PortState, **changes: Any) -> set[str]:
    data = state.plain()
    for name, change in changes.items():
        data[name] = {**data[name], **change} if isinstance(data[name], dict) else change
    return {item.rule for item in findings_in(PortState, data)}


@pytest.mark.parametrize("state", [started(), dumped(), finished()])
def test_json_and_back(state: PortState) -> None:
    assert PortState.model_validate(json.loads(state.to_json())) == state
    assert state.update() == state


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"colour": "red"}, "unknown-field"),
        ({"model_family": "New Vid"}, "wrong-form"),
        ({"mode": "debug"}, "allowed-values"),
        ({"format": 2}, "allowed-values"),
        ({"definition_files": []}, "work-starts"),
        ({"instantiation_files": [{"path": "unknown"}]}, "unknown-path"),
        ({"target": {"model": ""}}, "unknown-path"),
        ({"target": {"model": "C:\\models\\x.py"}}, "relative-path"),
        ({"conversion": {"script": "~/convert.py"}}, "relative-path"),
        ({"concerns": [f"see {HOME}/x"]}, "machine-path"),
        ({"concerns": [f"PATH=/usr/bin:{HOME}/bin"]}, "machine-path"),
        ({"concerns": ["in ~/.cache/huggingface/hub"]}, "machine-path"),
        ({"contract": {"log": {"deep": ["/tmp/x"]}}}, "machine-path"),
        ({"contract": {"dump": "x" * 20_001}}, "large-text"),
        ({"handoff_notes": ["\x1b[1mbold"]}, "plain-text"),
        ({"handoff_notes": ["half \ud800"]}, "plain-text"),
        ({"contract": {"hub_token": "aB3dE5fG7hJ9kL1m"}}, "token-value"),
        ({"contract": {"hf_aB3dE5fG7hJ9kL1mN3": 1}}, "token-value"),
        ({"key_dumps": {"native": "planned"}}, "key-dumps"),
        ({"parity": {"verdict_sha256": None}}, "verdict-hash"),
        ({"parity": {"verdict_sha256": "5e" * 31}}, "wrong-form"),
        ({"parity": {"result": "3 passed, 1 skipped"}}, "pass-result"),
        ({"parity": {"status": "debug_red"}}, "pass-only"),
        ({"parity": {"status": "scaffold_skip", "missing": ["native_class"]}}, "pass-only"),
        ({"conversion": LAX}, "allowed-keys"),
        ({"conversion": {**LAX, "allowed_keys": [{"key": "a", "reason": "b"}], "strict_load": "pass"}}, "allowed-keys"),
        ({"conversion": {"exclusions": []}}, "named-drops"),
        ({"conversion": {"exclusions": [{"key": "a", "reason": ""}]}}, "wrong-form"),
        ({"reuse": {"verdict": "reuse", "native": "newvid"}}, "reuse-evidence"),
        ({"reuse": {"verdict": "reuse_with_arguments", "native": "newvid", "evidence": ["e"]}}, "reuse-evidence"),
        ({"reuse": {"verdict": "port", "differences": []}}, "reuse-evidence"),
        ({"steps": {"map": {"status": "blocked", "note": "write this model"}}}, "step-evidence"),
        ({"steps": {"map": {"status": "blocked", "updated": NOW}}}, "step-evidence"),
        ({"steps": {"map": {"status": "complete", "updated": "yesterday"}}}, "wrong-form"),
        ({"steps": {"map": {"status": "complete", "updated": "2026-01-31T09:30:00+02:00"}}}, "wrong-form"),
        ({"questions": [{"id": "1", "phase": "map", "question": "?"}]}, "wrong-form"),
        ({"questions": [{"id": "Q001", "phase": "map", "question": "?", "status": "resolved"}]}, "row-resolution"),
        ({"questions": [{"id": "Q001", "phase": "map", "question": "?"}] * 2}, "row-ids"),
    ],
)
def test_each_rule_of_the_record(changes: dict[str, Any], rule: str) -> None:
    data = finished().plain()
    for name, change in changes.items():
        data[name] = {**data[name], **change} if isinstance(data.get(name), dict) and name != "contract" else change
    assert {item.rule for item in findings_in(PortState, data)} == {rule}
    with pytest.raises(ConfigError, match=rule):
        new_state(**data)


def test_a_skip_names_what_it_waits_for() -> None:
    assert broken(started(), parity={"missing": []}) == {"status-cause"}
    assert broken(started(), parity={"missing": "none", "status": "blocked"}) == {"status-cause"}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_refused_and_cut_out(text: str) -> None:
    with pytest.raises(ConfigError, match="environment variable") as error:
        started().update(concerns=[f"log: {text}"])
    assert not any(part in str(error.value) for part in ("aB3dE5", "s3cr3t", "12345678"))
    cleaned = tidy(f"log: {text}")
    assert "aB3dE5" not in cleaned
    assert started().update(concerns=[cleaned]).concerns == (cleaned,)


@pytest.mark.parametrize(
    "text",
    [
        "ab" * 32,
        "verdict sha256 " + "0123456789abcdef" * 4,
        "HF_TOKEN",
        "token: $HF_TOKEN",
        "token=HUGGINGFACE_HUB_TOKEN",
        "tokenizer: Qwen/Qwen2.5-7B-Instruct",
        "num_tokens: 12345678901234",
        "hf_revision and hf_weights_path",
        "task-oriented-very-long-name",
        "revision 26f23eda626ffadda020b04ff79488e1d72004cd",
        "https://github.com/a/b@0123abc",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert secrets(text) == []
    assert started().update(concerns=[text]).concerns == (text,)


def test_entropy() -> None:
    assert is_high_entropy("aB3dE5fG7hJ9kL1m")
    assert not is_high_entropy("aaaaaaaaaaaaaaaa1")
    assert not is_high_entropy("MY_OWN_TOKEN_1")


def test_paths_of_the_user_are_kept_and_not_shown() -> None:
    state = started()
    assert state.source.official_ref_dir == f"{HOME}/NewVid"
    assert shown(state.source.official_ref_dir) == "~/NewVid"
    assert shown("/data/models/x/NewVid/vae") == ".../NewVid/vae"
    assert shown("C:\\Users\\ann\\NewVid") == "~/NewVid"
    assert shown("NewVid/NewVid-1B") == "NewVid/NewVid-1B"
    assert tidy(f"\x1b[31mFile {HOME}/x.py\x1b[0m\r\nend") == "File ~/x.py\nend"
    assert len(tidy("x" * 50_000, 100)) == 100
    nested = tidy(f"cannot write {'/wo' + 'rk'}{'/tm' + 'p'}/x.py")
    assert nested == "cannot write ~/tm" + "p/x.py"
    assert list(problems({"note": nested})) == []


@pytest.mark.parametrize(
    ("said", "search"),
    [
        ("unknown (searched rg -l VAE src)", "rg -l VAE src"),
        ("unknown (searched: rg 'f(x)' src)", "rg 'f(x)' src"),
        ("unknown: rg f(x)", "rg f(x)"),
        ("unknown; exact search made: ls src", "ls src"),
        ("unknown - find . -name '*.py'", "find . -name '*.py'"),
        ("unknown", ""),
        ("unknown ()", ""),
        ("unknown_vae.py", ""),
    ],
)
def test_unknown_paths(said: str, search: str) -> None:
    assert search_of(said) == search
    if search:
        state = started().update(parity={"test": said})
        assert state.parity.test == unknown(search)
        assert search_of(state.parity.test) == search
    assert is_unknown("unknown_vae.py") is False


def test_unknown_as_a_mapping() -> None:
    for said in ({"unknown": "ls"}, {"path": "unknown", "search": "ls"}, {"search": "ls"}):
        assert started().update(target={"model": said}).target.model == unknown("ls")


def test_work_does_not_start_without_its_files() -> None:
    nothing = unknown("rg VAE")
    state = started().update(
        definition_files=[{"path": nothing}],
        instantiation_files=[{"path": nothing}],
        parity={"test": nothing},
    )
    assert [item.where for item in state.blockers_to_start()] == [
        "definition_files",
        "instantiation_files",
        "parity.test",
    ]
    assert started().blockers_to_start() == []


def test_steps_and_next_step() -> None:
    state = started()
    assert (state.phase, state.owner, state.last_updated, state.next_step) == (
        *("context", "prep", "not_started"),
        "phase_5_conversion",
    )
    state = state.with_step("context", "complete", at="2026-01-31T09:30:00+00:00", inputs="ab" * 32)
    assert (state.phase, state.steps.context.updated, state.steps.context.inputs) == ("official", NOW, "ab" * 32)
    assert state.with_step("official", "blocked", at=NOW, note="needs einops").next_step == "blocked"
    assert state.with_row("retries", phase="parity", request=RETRY).next_step == "phase_5_conversion_retry"
    asking = state.with_row("escape_hatches", phase="official", hatch=HATCH)
    assert asking.next_step == "ask_user"
    assert asking.resolved("E001", "the checkpoint's").next_step == "phase_5_conversion"
    assert finished().next_step == "phase_6_continue"
    with pytest.raises(ConfigError, match="step-evidence"):
        state.with_step("official", "blocked", at=NOW)


def test_rows_are_numbered_and_stay() -> None:
    state = started().with_row("questions", phase="a", question="A?").with_row("questions", phase="b", question="B?")
    assert [row.id for row in state.questions] == ["Q001", "Q002"]
    answered = state.resolved("Q001", "yes")
    assert answered.successor_of(state) == []
    assert [item.where for item in state.successor_of(answered)] == ["questions.Q001"]
    assert [item.where for item in answered.update(questions=[]).successor_of(answered)] == [
        *("questions.Q001", "questions.Q002"),
    ]
    other = answered.update(questions=[{**answered.questions[0].plain(), "resolution": "no"}, answered.questions[1]])
    assert {item.rule for item in other.successor_of(answered)} == {"rows-stay"}
    for id in ("Q001", "Q009"):
        with pytest.raises(ConfigError, match="no open row"):
            answered.resolved(id, "again")


def test_decisions_and_identity_stay() -> None:
    rows = [{"date": "2026-01-31", "decision": name, "rationale": "r", "impact": "i"} for name in "ab"]
    state = started().update(decisions=rows)
    assert state.update(decisions=[*rows, rows[0]]).successor_of(state) == []
    assert [item.where for item in state.update(decisions=rows[1:]).successor_of(state)] == ["decisions"]
    assert [item.where for item in state.update(model_family="other").successor_of(state)] == ["model_family"]


def test_records_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        started().model_family = "other"  # type: ignore[misc]


WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/~\\"), min_size=1, max_size=30
).filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def states(draw: st.DrawFn) -> PortState:
    """Records with drawn text in every kind of field."""
    row = st.fixed_dictionaries(dict.fromkeys(("date", "decision", "rationale", "impact"), WORDS))
    state = new_state(**FIELDS, contract=draw(st.dictionaries(WORDS, JSON, max_size=3)))
    state = state.update(
        concerns=draw(st.lists(WORDS, max_size=3)),
        handoff_notes=draw(st.lists(WORDS | st.just("a\n| b \\ <br>"), max_size=3)),
        reuse={"verdict": "port", "differences": [draw(WORDS)]},
        conversion={"mapping_notes": draw(WORDS)},
        decisions=draw(st.lists(row, max_size=2)),
    )
    for text in draw(st.lists(WORDS, max_size=3)):
        state = state.with_row("questions", phase="map", question=text)
    return state.resolved("Q001", draw(WORDS)) if state.questions else state


@given(states())
@settings(max_examples=60)
def test_any_record_comes_back_from_json(state: PortState) -> None:
    assert PortState.model_validate(json.loads(state.to_json())) == state
    assert PortState.model_validate_json(state.to_json()).to_json() == state.to_json()
