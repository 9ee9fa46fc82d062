"""What every test runs under: this tree's package, a fixed seed, its share of the cores, and no network."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import settings

from tests import long

pytest_plugins = ["pytester", "tests.fixtures"]
if not entry_points(group="pytest11", name="vaeport"):  # on the path, not installed
    pytest_plugins.append("vaeport.port.pytest_plugin")

SOURCE = Path(__file__).resolve().parents[1] / "src" / "vaeport" / "__init__.py"

# Before torch is imported, and through the environment, so that the processes which tests start get the same share.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // WORKERS))
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1")

settings.register_profile("vaeport", derandomize=True, deadline=None)
settings.load_profile("vaeport")


def refuse_network(event: str, args: tuple[object, ...]) -> None:
    """Let sockets reach this machine alone: a test that needs anything else is not a test of this project."""
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a path, for a Unix socket
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if host not in (None, "", "localhost", "::1") and not str(host).startswith("127."):
        raise PermissionError(f"tests run without a network, and this one asked for {host}")


def pytest_configure() -> None:
    sys.addaudithook(refuse_network)
    spec = importlib.util.find_spec("vaeport")
    found = spec.origin if spec else "nowhere"
    if found is None or Path(found).resolve() != SOURCE:
        pytest.exit(f"vaeport is imported from {found}, not from {SOURCE}: run `make setup`", returncode=4)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long.mark(items, whole_files=not any("::" in argument for argument in config.args))


def pytest_runtest_setup() -> None:
    import torch

    torch.manual_seed(0)
