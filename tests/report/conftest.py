"""Proofs that run once for all tests of reports."""

from __future__ import annotations

import pytest

from tests.report.samples import proof, told, wrong_eps
from vaeport.report.schema import Report
from vaeport.report.watched import Watched


@pytest.fixture(scope="session")
def failing() -> Report:
    """A proof with a wrong eps, explained."""
    watched = Watched(proof(wrong_eps))
    verdict = watched.proof.run()
    watched.explain(verdict.failed_gates())
    return told(watched, verdict)


@pytest.fixture(scope="session")
def passing() -> Report:
    """A proof that passes; its units are measured."""
    watched = Watched(proof())
    verdict = watched.proof.run()
    watched.measure()
    return told(watched, verdict)
