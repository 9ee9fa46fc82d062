"""The pytest plugin of vaeport: the fixture `parity`, and the options `--no-skip` and `--parity-json FILE`.

A parity test ends in one of four ways, which a run tells apart:

    scaffold_skip   something that it needs is missing; skipped, and with --no-skip a failure that names it
    debug_red       a gate failed, or less was covered than declared; the failure holds the verdict
    non_skip_pass   every gate passed on all that the coverage scope declares; `-s` shows the table
    blocked         the proof could not be carried out; the failure says why

`-p no:vaeport` switches the plugin off; `plugin_arguments` loads it where vaeport is on the path but not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vaeport.port.pytest_outcome import Outcome, outcome_of
from vaeport.port.pytest_results import Results

if TYPE_CHECKING:
    from vaeport.port.parity import Parity

OUTCOMES = pytest.StashKey[list[Outcome]]()


def plugin_arguments() -> list[str]:
    """Arguments with which a run of pytest by this interpreter has the plugin; none if it is installed."""
    return [] if entry_points(group="pytest11", name="vaeport") else ["-p", __name__]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-skip` and `--parity-json`."""
    group = parser.getgroup("vaeport", "parity tests of vaeport")
    group.addoption("--no-skip", action="store_true", help="count every skipped test or module as failed")
    group.addoption(
        "--parity-json",
        type=Path,
        metavar="FILE",
        help="write the outcomes of parity tests to FILE, verdicts beside it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Outcomes are gathered where the run is controlled, not in the workers of pytest-xdist."""
    file: Path | None = config.getoption("--parity-json")
    if hasattr(config, "workerinput"):
        return
    if file is not None:
        file = config.invocation_params.dir / file
        if file.is_dir():
            raise pytest.UsageError(f"--parity-json: {file} is a folder; give the name of a file")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--parity-json: the folder of {file} cannot be made: {error}") from error
    config.pluginmanager.register(Results(file), "vaeport-results")


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[Parity], None]:
    """Carries out a `vaeport.port.parity.Parity`: skips, fails or passes, and records which."""
    outcomes = request.node.stash.setdefault(OUTCOMES, [])

    def prove(subject: Parity) -> None:
        outcome = outcome_of(subject, request.node.nodeid)
        outcomes.append(outcome)
        request.node.user_properties += outcome.properties()
        if outcome.status == "scaffold_skip":
            pytest.skip(f"scaffold_skip: {outcome.result}")
        if outcome.crash is not None:
            raise outcome.crash
        if outcome.status != "non_skip_pass":
            pytest.fail("\n".join([f"{outcome.status}: {outcome.result}", *outcome.details]), pytrace=False)
        print("\n" + "\n".join(outcome.details))

    return prove


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails skips under --no-skip and tests that compared nothing; the last report takes the outcomes along."""
    report = yield
    outcomes = item.stash.get(OUTCOMES, None)
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skip"):
        _fail(report, item, f"--no-skip: {_reason(report)}")
    elif report.when == "call" and report.passed and outcomes == []:
        _fail(report, item, "the test asks for the fixture `parity` and never calls it: nothing was compared")
    if report.when == "teardown" and outcomes:
        with_verdict = item.config.getoption("--parity-json") is not None
        report.__dict__["parity"] = [outcome.to_json(with_verdict) for outcome in outcomes]
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under --no-skip a module that skips itself is an error; the other modules run all the same."""
    report = yield
    if report.skipped and collector.config.getoption("--no-skip"):
        # text, by which xdist sees that its workers tell the same
        report.outcome, report.longrepr = "failed", f"--no-skip: {_reason(report)}"
        collector.config.option.continue_on_collection_errors = True
    return report


def _fail(report: pytest.TestReport, item: pytest.Item, says: str) -> None:
    """Turns a report into that of a failure, as if the test had failed with these words."""
    try:
        pytest.fail(says, pytrace=False)
    except pytest.fail.Exception:
        report.longrepr = item.repr_failure(pytest.ExceptionInfo.from_current())
    report.outcome = "failed"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why something was skipped."""
    told = report.longrepr
    return str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ")
