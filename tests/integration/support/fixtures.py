"""Fixtures that every folder's tests have: pytest_plugins of its conftest.py names this module."""

import itertools

import pytest

from .certs import Certs


@pytest.fixture
def figure(request):
    """figure("%.2f s", seconds): a line of the run's summary, for what was measured."""
    return lambda text, *values: request.node.user_properties.append(("figure", text % values))


def pytest_terminal_summary(terminalreporter):
    for report in itertools.chain(*terminalreporter.stats.values()):
        for key, figure in getattr(report, "user_properties", ()):
            if key == "figure" and report.when == "call":
                terminalreporter.write_line(f"figure: {report.nodeid.rpartition('::')[2]}: {figure}")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    return Certs(tmp_path_factory.mktemp("certs"))
