"""The steps of a port: each returns the files that it wrote, relative to the root, or stops and says what it lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vaeport.mapping.induce import source_of
from vaeport.port import scaffold
from vaeport.port.contracts.text import tidy
from vaeport.port.convert import convert, parse_drop
from vaeport.port.derivation import twin
from vaeport.port.explaining import explanation
from vaeport.port.findings import concerns_of, to_write
from vaeport.port.gate import checked
from vaeport.port.parity import PRODUCTION
from vaeport.port.pytest_outcome import EXPLAINED
from vaeport.port.reuse import ReuseProof
from vaeport.port.work import StopError, Work, file_hash


class Steps(Work):
    """One method per step, named after it."""

    def context(self) -> list[str]:
        """Everything that must be known before work starts."""
        blockers = self.state.blockers_to_start()
        if blockers:
            raise StopError("; ".join(map(str, blockers)))
        return []

    def official(self) -> list[str]:
        """Keys, flow and contract of the official side, from running it."""
        side = self._side(self.request.convention())
        described, contract = side.describe(), side.ask("port.probe:probe")
        self._write("official_flow.json", {"flow": contract.pop("flow"), "probe": contract})
        keys = {k: {"shape": s, "dtype": described["dtypes"][k]} for k, s in described["shapes"].items()}
        self._write("official_keys.json", keys)
        convention = {k: v for k, v in contract.pop("convention").items() if k != "weights"}
        stubs = [{"module": name, "reason": "missing here; the VAE never calls it"} for name in described["stubs"]]
        self._save(
            self.state.update(
                modality=contract["modality"],
                definition_files=[{**self.state.definition_files[0].plain(), "path": self._defined_in(described)}],
                contract={**contract, "convention": convention},
                stubs=stubs,
                concerns=concerns_of(contract, described["stubs"]),
                key_dumps={"official": f"{self.request.home}/official_keys.json"},
            )
        )
        return [f"{self.request.home}/official_keys.json", f"{self.request.home}/official_flow.json"]

    def reuse(self) -> list[str]:
        """The reuse proof, and questions that only the user can answer."""
        proof = self._reuse_proof
        nearest = proof.nearest
        rows: dict[str, Any] = {
            "verdict": proof.verdict,
            "evidence": proof.evidence[:20],
            "differences": [tidy(d) for d in proof.differences[:20]],
        }
        if proof.ambiguous:
            self._ask_variant(proof)
        for row in self.state.open_rows("escape_hatches"):
            self._save(
                self.state.resolved(
                    row.id, f"--variant {self.request.variant}" if self.request.variant else "no longer open"
                )
            )
        if nearest is not None and proof.verdict != "port":
            rows |= {"native": nearest.name, "arguments": json.loads(json.dumps(nearest.arch.to_published()))}
        self._save(self.state.update(reuse=rows))
        self._write("reuse.json", {**rows, "nearest": nearest.name if nearest else None})
        return [f"{self.request.home}/reuse.json"]

    def prototype(self) -> list[str]:
        """Keys of the native side; or the order to write it, with a red test."""
        proof = self._reuse_proof
        if proof.verdict == "port" or proof.nearest is None:
            text = to_write(self.request, self.state.contract, self._flow, proof)
            self.request.path("WRITE_THIS_MODEL.md").write_text(text)
            scaffold.write_test(self.request, self.state, {}, None)
            status = self._pytest()
            self._save(self.state.update(mode="prototype", parity=status))
            raise StopError(
                f"write this model: src/vaeport/models/{self.request.family}.py, as "
                f"{self.request.home}/WRITE_THIS_MODEL.md says; then run the same command again"
            )
        native = proof.nearest
        with torch.device("meta"):
            state = native.registration.model(native.arch).state_dict()
        self._write(
            "native_keys.json", {k: {"shape": list(t.shape), "dtype": str(t.dtype)[6:]} for k, t in state.items()}
        )
        target = scaffold.target_of(native.registration, native.arch, self.request.root)
        self._save(
            self.state.update(
                mode="prototype",
                target=target,
                key_dumps={"native": f"{self.request.home}/native_keys.json"},
                parity={"missing": ["converted_weights"], "status": "scaffold_skip"},
            )
        )
        return [f"{self.request.home}/native_keys.json"]

    def map(self) -> list[str]:
        """The weight map, derived and proved by gate S on drawn weights."""
        derived = self._derived
        registration, arch = self._native
        official = self._official_side
        normalized = official.convention.normalized
        with twin(official, registration, arch, derived, self._flow, normalized=normalized) as proof:
            if self.watch is not None:
                self.watch(proof)
            verdict = proof.run()
            told = [] if verdict else explanation(proof)
        self._write("map_verdict.json", verdict.to_json())
        about = f"Keys of {self.request.reference.rpartition(':')[2]}, found from data flow by `vaeport port`."
        self.request.path("weight_map.py").write_text(source_of(derived.rules, about))
        known = derived.registered or (self._register_map(derived) if verdict else None)
        self._write("map.json", {"evidence": derived.evidence, "gate_S": verdict.lines(), "registered": known})
        if not verdict:
            worst = "; ".join((*told, *(f"{f.name} {f.where}: {f.says}" for f in verdict.failures[:3])))
            self._file_explanation("map", "same graph, another function", told, worst)
            self._save(self.state.update(reuse={"verdict": "port", "differences": [tidy(worst)]}))
            raise StopError(f"the weights map, but gate S fails: this is not the same function ({worst})", code=1)
        self._save(self.state.update(reuse={"verdict": self._reuse_proof.verdict, "differences": []}))
        self._resolve("map", "gate S holds now")
        notes = (
            derived.evidence[-1] if derived.registered else f"derived from data flow: {self.request.home}/weight_map.py"
        )
        self._save(
            self.state.update(conversion={"mapping_notes": notes, "script": f"{self.request.home}/weight_map.py"})
        )
        return [f"{self.request.home}/{name}" for name in ("weight_map.py", "map.json", "map_verdict.json")]

    def convert(self) -> list[str]:
        """The component folder."""
        request = self.request
        if request.weights is None:
            raise StopError("no checkpoint: run the same command with --weights FILE")
        self._file_edits()
        registration, arch = self._native
        drops = tuple(parse_drop(text) for text in request.drops)
        done = convert(
            Path(request.weights), registration, arch, self._layout, request.root / request.converted,
            prefix=request.prefix, drops=drops,
        )  # fmt: skip
        for row in self.state.open_rows("retries"):
            self._save(self.state.resolved(row.id, f"converted anew, strict load {done.strict_load}"))
        exclusions = [{"key": key, "reason": reason} for key, reason in done.dropped.items()]
        self._save(
            self.state.update(
                mode="parity-debug",
                conversion={
                    "converted_component_dir": request.converted,
                    "model_index_library": "diffusers",
                    "config_file": "config.json",
                    "strict_load": done.strict_load,
                    "exclusions": exclusions,
                    "config_validation": "pass",
                },
                handoff_notes=[tidy(line) for line in done.evidence],
            )
        )
        return [str(file.relative_to(request.root.resolve())) for file in done.files]

    def parity(self) -> list[str]:
        """The parity test, written and run."""
        registration, arch = self._native
        known = next((name for name, one in registration.model.variants.items() if one == arch), None)
        weight_map = None if self._registered_map else "weight_map.py"
        scaffold.write_test(self.request, self.state, known or arch.to_published(), weight_map)
        status = self._pytest()
        self._save(self.state.update(parity=status))
        self._resolve("parity", "the parity test is green now")
        if status["status"] == "debug_red":
            self._file_conversion_fault(status)
            notes = json.loads((self.request.root / status["verdict"]).read_text())["notes"]
            told = [note.removeprefix(EXPLAINED) for note in notes if note.startswith(EXPLAINED)]
            self._file_explanation("parity", "the parity test is red", told, status["result"])
        if status["status"] != "non_skip_pass":
            raise StopError(
                f"the parity test is not green: {status['result']}", code=1 if status["status"] == "debug_red" else 3
            )
        return [self.request.test, status["verdict"]]

    def handoff(self) -> list[str]:
        """The cleanup gate, and all views of the record."""
        registration, arch = self._native
        with torch.device("meta"):
            native = registration.model(arch)
        self._save(self.state.update(cleanup=checked(self.request, self.state, self._official_side, native)))
        if self.state.cleanup.outcome == "fail":
            raise StopError("; ".join(self.state.cleanup.lines()), code=1)
        files = [self.request.test, self.state.readme, self.state.status_file]
        self._save(
            self.state.update(
                files_changed=sorted({*self.state.files_changed, *files, f"{self.request.home}/port_state.json"})
            )
        )
        self._save(self.state.with_step("handoff", "complete", at=now()))
        return self._views()

    def _defined_in(self, described: Mapping[str, Any]) -> str:
        """The file of the official class: as the source names it, or, for an import path, as the package does."""
        place = self.request.reference.rpartition(":")[0]
        known: str = self.state.definition_files[0].path
        return known if place.endswith(".py") else described["defined_in"]

    # Questions and requests, as rows of the record.

    def _ask_variant(self, proof: ReuseProof) -> None:
        names = proof.ambiguous
        hatch = {
            "needs_user_input": "yes",
            "decision_type": "ambiguity",
            "question": f"Which of the published configurations is this checkpoint's: {', '.join(names)}?",
            "recommended_option": f"{names[0]}, if the checkpoint's name says no more",
            "options": [
                {"option": f"--variant {n}", "consequence": f"latent constants of {n} are written"} for n in names[:3]
            ],
            "safe_default": "none; they differ in constants that the official class leaves to its caller",
            "blocked_until_answered": "yes",
            "state_snapshot": {
                "phase": "reuse",
                "files_changed": [],
                "command_or_test": "vaeport port",
                "evidence": "graph, shapes and contract are equal for all of them",
            },
        }
        if not self.state.open_rows("escape_hatches"):
            self._save(self.state.with_row("escape_hatches", phase="reuse", hatch=hatch))
        raise StopError(
            f"which published configuration? Run again with one of: {', '.join(f'--variant {n}' for n in names)}"
        )

    def _file_explanation(self, phase: str, what: str, told: Sequence[str], evidence: str) -> None:
        """Why both sides differ, as an issue of the record, and so of the hand-over."""
        issue = tidy(": ".join((what, *told[:1])))
        self._save(self.state.with_row("issues", phase=phase, issue=issue, evidence=tidy(evidence), severity="high"))

    def _resolve(self, phase: str, how: str) -> None:
        for row in self.state.open_rows("issues"):
            if row.phase == phase:
                self._save(self.state.resolved(row.id, how))

    def _file_edits(self) -> None:
        """A conversion that somebody edited is asked for anew, and the request stays in the record."""
        held = {path: self.request.root / path for path in self.state.steps.convert.artifacts}
        hashes = self.state.steps.convert.artifacts
        edited = [path for path, file in held.items() if not file.is_file() or file_hash(file) != hashes[path]]
        if edited:
            self._retry(edited, "files of the conversion were changed or removed by other means", "unknown")

    def _file_conversion_fault(self, status: Mapping[str, Any]) -> None:
        """Asks for another conversion where drawn weights pass gate S and the converted ones do not."""
        failures = json.loads((self.request.root / status["verdict"]).read_text())["failures"]
        if failures and all(f["gate"] == "S" and f["where"].startswith(PRODUCTION) for f in failures):
            worst = "; ".join(f"{f['where']}: {f['says']}" for f in failures[:3])
            self._retry([], f"passes on drawn weights, fails on converted ones: {worst}", "unknown")

    def _retry(self, keys: list[str], evidence: str, fix: str) -> None:
        row = {
            "component": self.request.component,
            "parity_test": self.request.test,
            "failing_keys": keys,
            "source_prefix_or_path": self.request.prefix or self.request.converted,
            "evidence": tidy(evidence),
            "suspected_fix": fix,
        }
        self._save(self.state.with_row("retries", phase="convert", request=row))


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
