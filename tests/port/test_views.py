"""The views say what the record says, field for field, without secrets or paths of a machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.port.states import HATCH, HOME, NOW, RETRY, dumped, finished, started
from tests.port.test_state import states
from vaeport.errors import ConfigError
from vaeport.port.contracts.fields import unknown
from vaeport.port.contracts.yaml_text import parse_yaml
from vaeport.port.state import PortState
from vaeport.port.views.catalog import VIEWS
from vaeport.port.views.port_status import PortStatus, markdown_fields
from vaeport.port.views.readme import readme
from vaeport.port.views.tables import cell, uncell

FIELDS = {
    "component_context": "model_family component component_type mode official_ref_dir official_definition_files"
    " official_instantiation_files official_weight_source target_files local_tests_readme port_state_file parity_test"
    " prototype_key_dumps conversion concerns_or_unknowns weights",
    "component_skill_handoff": "component mode files_changed official_files_used prototype_key_dumps port_state_file"
    " concerns_or_unknowns parity_test parity_status production_loader_strictness strict_load pytest_output blocker"
    " conversion_retry_request readme_updated next_step escape_hatch",
    "parity_status": "component_parity pipeline_parity local_tests_readme port_state_file notes escape_hatch",
    "conversion_request": "model_family source_layout official_weights hf_revision converted_weights_dir"
    " local_tests_readme port_state_file components",
    "conversion_retry_request": "component parity_test failing_keys expected_actual_shapes source_prefix_or_path"
    " evidence suspected_fix",
    "conversion_handoff": "conversion_script source_layout converted_weights_dir port_state_file components_written"
    " passthrough_components strict_load component_context_updates blocked_on next_step escape_hatch",
    "escape_hatch": "needs_user_input decision_type question recommended_option options safe_default"
    " blocked_until_answered state_snapshot",
    "port_state": "summary current_phase component_matrix conversion_state parity_commands open_questions"
    " issues_and_blockers escape_hatches decisions handoff_notes",
}

LACKS = {
    ("component_skill_handoff", "parity-scaffold"): "key-dumps",
    ("conversion_request", "parity-scaffold"): "key-dumps",
    ("conversion_retry_request", ""): "no conversion retry is open",
}


def plain(name: str, state: PortState) -> dict[str, Any]:
    return VIEWS[name].from_state(state).plain()


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_those_of_the_contract(name: str) -> None:
    state = finished().with_row("retries", phase="parity", request=RETRY)
    assert list(plain(name, state)) == FIELDS[name].split()
    assert set(FIELDS) == set(VIEWS)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("state", [started(), dumped(), finished()], ids=["started", "dumped", "finished"])
def test_views_round_trip_and_hide_the_machine(name: str, state: PortState) -> None:
    kind = VIEWS[name]
    if lack := LACKS.get((name, state.mode)) or LACKS.get((name, "")):  # a record that is not far enough says so
        with pytest.raises(ConfigError, match=lack):
            kind.from_state(state)
        return
    view = kind.from_state(state)
    data = json.loads(view.to_json())
    assert parse_yaml(view.to_yaml()) == [data]
    assert kind.model_validate(data[name] if kind.WRAPPED else data) == view
    assert HOME not in view.to_yaml()
    assert "/data/" not in view.to_yaml()


def test_context() -> None:
    early, late = plain("component_context", started()), plain("component_context", finished())
    assert early["official_ref_dir"] == "~/NewVid"
    assert early["prototype_key_dumps"] == {"official": "planned", "native": "planned"}
    assert early["target_files"] == [unknown("vaeport models")]
    assert early["weights"] == "NewVid_VAE.pth"
    assert late["target_files"] == ["src/vaeport/models/newvid.py", "src/vaeport/weights/newvid.py"]
    assert late["weights"] == "converted_weights/newvid/vae"
    assert late["conversion"]["mapping_notes"] == "renamed; dropped: loss.logvar (training only)"
    assert late["concerns_or_unknowns"][0] == "I001: q and k\nare swapped"


def test_handoff() -> None:
    prototype, done = plain("component_skill_handoff", dumped()), plain("component_skill_handoff", finished())
    assert (prototype["mode"], prototype["next_step"]) == ("prototype", "phase_5_conversion")
    assert done["files_changed"] == ["src/vaeport/models/newvid.py"]
    assert done["pytest_output"] == "pytest t.py -v -s: 4 passed in 3 s; verdict sha256 " + "5e" * 32
    assert (done["conversion_retry_request"], done["escape_hatch"], done["readme_updated"]) == ("none", "none", "no")
    told = finished().update(files_changed=["tests/local_tests/newvid/README.md"])
    assert plain("component_skill_handoff", told)["readme_updated"] == "yes"


def test_an_open_hatch_asks_and_names_its_row() -> None:
    state = dumped().with_row("escape_hatches", phase="official", hatch=HATCH)
    handoff = plain("component_skill_handoff", state)
    assert handoff["next_step"] == "ask_user"
    assert handoff["escape_hatch"]["state_snapshot"]["evidence"].startswith("E001: ")
    assert plain("escape_hatch", state) == handoff["escape_hatch"]
    assert plain("conversion_handoff", state)["next_step"] == "ask_user"
    assert plain("escape_hatch", dumped())["needs_user_input"] == "no"


def test_an_open_retry_is_handed_over_and_its_answer_told() -> None:
    state = finished().with_row("retries", phase="parity", request=RETRY)
    handoff = plain("component_skill_handoff", state)
    assert handoff["next_step"] == "phase_5_conversion_retry"
    assert handoff["conversion_retry_request"] == plain("conversion_retry_request", state)
    (update,) = plain("conversion_handoff", state)["component_context_updates"]
    assert update["retry_resolved"] == "no"
    answered = state.resolved("R001", "q, k and v are split now")
    (update,) = plain("conversion_handoff", answered)["component_context_updates"]
    assert update["retry_resolved"] == "yes"
    assert "q, k and v are split now" in PortStatus.from_state(answered).conversion_state.retry_history


def test_conversion_before_it_ran() -> None:
    handoff = plain("conversion_handoff", dumped())
    assert (handoff["strict_load"], handoff["blocked_on"]) == ("blocked", "the conversion has not run")
    assert handoff["components_written"] == []


def test_blockers_are_told() -> None:
    state = dumped().with_step("map", "blocked", at=NOW, note="write this model")
    assert plain("component_skill_handoff", state)["blocker"] == "write this model"
    red = finished().with_step("parity", "in_progress", at=NOW).with_step("handoff", "not_started", at=NOW)
    red = red.update(parity={"status": "debug_red", "result": "1 failed: decode differs"})
    assert "1 failed: decode differs" in plain("component_skill_handoff", red)["blocker"]


def test_port_status_has_all_rows_and_comes_back() -> None:
    state = finished().with_row("escape_hatches", phase="official", hatch=HATCH).resolved("E001", "the checkpoint's")
    view = PortStatus.from_state(state)
    text = view.to_markdown()
    fields, lacks = markdown_fields(text)
    assert lacks == []
    assert PortStatus.model_validate(fields) == view
    rows = [*fields["open_questions"], *fields["issues_and_blockers"], *fields["escape_hatches"]]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("Q001", "resolved"),
        ("I001", "open"),
        ("E001", "resolved"),
    ]
    assert fields["issues_and_blockers"][0]["issue"] == "q and k\nare swapped"
    assert fields["handoff_notes"] == ["the encoder | is next"]
    assert fields["summary"]["hf_weights_path"] == "~/weights/NewVid_VAE.pth"


@given(states())
@settings(max_examples=60)
def test_any_port_status_is_deterministic_and_comes_back(state: PortState) -> None:
    view = PortStatus.from_state(state)
    again = PortStatus.from_state(PortState.model_validate_json(state.to_json()))
    assert again.to_markdown() == view.to_markdown()
    assert PortStatus.model_validate(markdown_fields(view.to_markdown())[0]) == view
    assert readme(state) == readme(PortState.model_validate_json(state.to_json()))


@pytest.mark.parametrize("text", ["", "a|b", "a\\|b", "\\", "a\nb", "<br>", "\\<br>", "a\\\nb", "| |", "`x | y`"])
def test_cells_come_back(text: str) -> None:
    assert "\n" not in cell(text)
    assert uncell(cell(text)) == text


def test_readme_tells_a_reviewer_how_to_test() -> None:
    text = readme(finished())
    for told in (
        "pytest tests/local_tests/vaes/test_newvid_vae_parity.py -v -s",
        "https://github.com/NewVid/NewVid@0123abc",
        "newvid/vae.py",
        '{"mult": [1, 2]}',
        "4 passed in 3 s",
        "5e" * 32,
        "dropped: loss.logvar (training only)",
        "vaeport.models.newvid:AutoencoderKLNewVid",
    ):
        assert told in text
    assert HOME not in text
