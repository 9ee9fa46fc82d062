"""The report of a port: its record, the verdict of its parity test, its map, and what the map's proof showed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.configs import LatentContract
from vaeport.errors import ConfigError, VaeportError
from vaeport.mapping import plan
from vaeport.port.contracts.steps import STEPS, StepName
from vaeport.port.parity import read_layout
from vaeport.port.pytest_outcome import EXPLAINED
from vaeport.port.run import Port
from vaeport.port.state import PortState
from vaeport.report.build import environment, fitted
from vaeport.report.contract import PROBED, probed
from vaeport.report.gather import Gathered, dropped_of, weights_of
from vaeport.report.schema import Command, Proved, Report, Stage

KEPT = "The map was kept from an earlier run, so no outputs were compared in this one; figures are the parity test's."
NOT_YET = "The port has not come so far."
NO_UNITS = "A port does not measure them; vaeport prove --explain --html does."


class WatchedPort:
    """A port of which a report is wanted, from before it runs until it is told."""

    def __init__(self, port: Port) -> None:
        self.port, self.gathered = port, Gathered()
        port.watch = self.gathered.watch

    def report(self, state: PortState, commands: Iterable[tuple[str, str]]) -> Report:
        """The report of the record that its run ended with."""
        return report_of_port(self.port, state, self.gathered, commands)


def report_of_port(
    port: Port, state: PortState, gathered: Gathered, commands: Iterable[tuple[str, str]] = ()
) -> Report:
    """The report of a port as its record and its folder have it.

    gathered    what was seen of the proof of its map, if that ran now
    """
    proved = _proved(port, state)
    contract = _contract(port, state)
    weights, dropped, layout = gathered.weights, gathered.dropped, gathered.layout
    if not weights:
        weights, dropped, layout = _map(port)
    absent = {} if contract else {"contract": NOT_YET}
    if not weights:
        absent["weights"] = NOT_YET
    if not gathered.comparisons:
        absent["comparisons"] = KEPT if state.steps.map.status == "complete" else NOT_YET
    finished = getattr(state.steps, port.request.until).status == "complete"
    return fitted(
        Report(
            kind="port",
            title=f"{state.model_family} {state.component} from {state.source.given}",
            passed=finished and (proved is None or proved.passed),
            proved=proved,
            contract=() if contract is None else probed(contract, dict(state.contract)),
            contract_from=PROBED if contract else "",
            layout=layout,
            weights=weights,
            dropped=dropped,
            comparisons=gathered.comparisons,
            stages=tuple(_stage(state, name) for name in STEPS),
            lines=tuple(_lines(state, proved)),
            environment=environment(proved),
            commands=tuple(Command(purpose=purpose, line=line) for purpose, line in commands),
            absent={**absent, "units": NO_UNITS},
        )
    )


def _stage(state: PortState, name: StepName) -> Stage:
    step = state.steps.of(name)
    # the note of a step that went well is how long it took
    return Stage(name=name, status=step.status, note="" if step.status == "complete" else step.note)


def _lines(state: PortState, proved: Proved | None) -> list[str]:
    told = [note.removeprefix(EXPLAINED) for note in (proved.notes if proved else ()) if note.startswith(EXPLAINED)]
    told += [f"{row.id}: {row.issue} ({row.evidence})" for row in state.open_rows("issues")]
    told += [f"{row.id}: {row.hatch.question}" for row in state.open_rows("escape_hatches")]
    told += list(state.reuse.differences)
    return [*dict.fromkeys(told), *state.cleanup.leftovers]


def _proved(port: Port, state: PortState) -> Proved | None:
    """The verdict of the parity test; before there is one, of the map."""
    places = [port.request.path("map_verdict.json")]
    if state.parity.verdict is not None:
        places.insert(0, port.request.root / state.parity.verdict)
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else Proved.model_validate(_read(found))


def _contract(port: Port, state: PortState) -> LatentContract | None:
    if not state.contract or not state.reuse.native:
        return None
    try:
        registration, arch = port._native
        return registration.model.contract_of(arch)
    except VaeportError:  # the record may name a class that is gone
        return None


def _map(port: Port) -> Any:
    """Rows of the map as the port's folder has it."""
    places = [port.request.path(name) for name in ("weight_map.py", "native_keys.json", "official_keys.json")]
    if not all(place.is_file() for place in places):
        return (), (), ""
    native, official = ({key: tuple(value["shape"]) for key, value in _read(place).items()} for place in places[1:])
    mapped = plan(read_layout(places[0]), native, official)
    return weights_of(mapped), dropped_of(mapped), mapped.layout.name


def _read(place: Path) -> dict[str, Any]:
    try:
        return parse_json_object(place.read_bytes())
    except (OSError, JsonProblemError) as error:
        raise ConfigError(
            "a file of the port cannot be read", where=place, found=error, fix="run the port again"
        ) from error
