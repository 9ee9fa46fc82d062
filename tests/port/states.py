"""Records of a port at its start and at its end."""

from __future__ import annotations

from typing import Any

from vaeport.port.contracts.fields import unknown
from vaeport.port.contracts.steps import STEPS
from vaeport.port.state import PortState, new_state

HOME = "/".join(("", "home", "ann"))  # no path of a machine stands in the tree
NOW = "2026-01-31T09:30:00Z"
FIELDS: dict[str, Any] = {
    "model_family": "newvid",
    "modality": "video",
    "workload_types": ["T2V"],
    "source": {
        "given": f"{HOME}/NewVid",
        "official_ref": "https://github.com/NewVid/NewVid@0123abc",
        "official_ref_dir": f"{HOME}/NewVid",
        "weights": f"{HOME}/weights/NewVid_VAE.pth",
        "local_weights_dir": "/data/models/ann/weights",
    },
    "definition_files": [{"path": "newvid/vae.py", "symbols": "Encoder, Decoder", "notes": "owns the weights"}],
    "instantiation_files": [{"path": "newvid/build.py", "symbols": ["make_vae"], "args": {"mult": (1, 2)}}],
    "weight_source": {"file": "NewVid_VAE.pth"},
    "target": {"model": unknown("vaeport models"), "config": unknown("vaeport models")},
    "parity": {"test": "tests/local_tests/vaes/test_newvid_vae_parity.py", "missing": ["converted_weights"]},
}
HATCH = {
    "needs_user_input": "yes",
    "decision_type": "ambiguity",
    "question": "Two official definitions are incompatible: which one counts?",
    "recommended_option": "the one of the checkpoint",
    "options": [
        {"option": "the checkpoint's", "consequence": "eps 1e-6"},
        {"option": "the paper's", "consequence": "eps 1e-5"},
    ],
    "safe_default": "none",
    "blocked_until_answered": "yes",
    "state_snapshot": {
        "phase": "official",
        "files_changed": [],
        "command_or_test": "not_run",
        "evidence": "newvid/vae.py and newvid/old/vae.py",
    },
}
RETRY = {
    "component": "vae",
    "parity_test": "tests/local_tests/vaes/test_newvid_vae_parity.py",
    "failing_keys": ["decoder.mid.q.weight"],
    "source_prefix_or_path": "decoder.mid",
    "evidence": "size mismatch",
    "suspected_fix": "split",
}


def started() -> PortState:
    """A record right after it was made."""
    return new_state(**FIELDS)


def dumped() -> PortState:
    """Both sides are instantiated, and their keys dumped."""
    folder = "converted_weights/newvid/_mapping"
    state = started().update(
        mode="prototype",
        key_dumps={"official": f"{folder}/vae_official_keys.json", "native": f"{folder}/vae_native_keys.json"},
        target={
            **{"name": "newvid", "import_path": "vaeport.models.newvid", "class_name": "AutoencoderKLNewVid"},
            **{"model": "src/vaeport/models/newvid.py", "config": "src/vaeport/models/newvid.py"},
            "weight_map": "src/vaeport/weights/newvid.py",
        },
        reuse={"verdict": "port", "differences": ["eps | 1e-5\nfor 1e-6"]},
        contract={"causal": True, "reach": [1, 2]},
    )
    for step in STEPS[:4]:
        state = state.with_step(step, "complete", at=NOW)
    return state


def finished() -> PortState:
    """A port that passed."""
    state = dumped().update(
        mode="parity-debug",
        conversion={
            **{"script": "src/vaeport/weights/newvid.py", "converted_component_dir": "converted_weights/newvid/vae"},
            **{"model_index_library": "diffusers", "config_file": "config.json", "mapping_notes": "renamed"},
            **{"strict_load": "pass_with_documented_exclusions", "config_validation": "pass"},
            "exclusions": [{"key": "loss.logvar", "reason": "training only"}],
        },
        parity={
            **{"status": "non_skip_pass", "missing": [], "command": "pytest t.py -v -s", "result": "4 passed in 3 s"},
            **{"verdict": "tests/local_tests/newvid/vae_verdict.json", "verdict_sha256": "5e" * 32},
        },
        files_changed=["src/vaeport/models/newvid.py", "converted_weights/newvid/vae/config.json"],
        handoff_notes=["the encoder | is next"],
    )
    state = state.with_row("questions", phase="official", question="Which eps?").resolved("Q001", "1e-6")
    state = state.with_row("issues", phase="map", issue="q and k\nare swapped", evidence="a|b")
    for step in STEPS[4:]:
        state = state.with_step(step, "complete", at=NOW, inputs="ab" * 32, artifacts={"a/b.json": "cd" * 32})
    return state
