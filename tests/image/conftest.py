"""The image, built once for all tests, and roots made from it."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from archive import Archive, Container
from support.need import cannot_run

REPO = Path(__file__).resolve().parents[2]
pytest_plugins = ["support.fixtures"]


class Built:
    """What deploy/image made in a folder, and what it said: image, name, digest, size, sbom."""

    def __init__(self, repo, out, *options):
        run = subprocess.run([repo / "deploy/image", "--out", out, *options], capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stdout + run.stderr
        self.said = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
        self.path, self.sbom = Path(self.said["image"]), Path(self.said["sbom"])
        self.archive = Archive(self.path)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return Built(REPO, tmp_path_factory.mktemp("image"))


@pytest.fixture
def container(built, tmp_path):
    """container(mounts) -> Container of the image, with a run dir of the test's."""
    if os.geteuid() != 0:
        cannot_run("a root of one's own needs root")
    numbers = itertools.count()

    def make(mounts=None):
        root, run = tmp_path / f"root{next(numbers)}", tmp_path / "run"
        root.mkdir()
        run.mkdir(exist_ok=True, mode=0o700)
        return Container(built.archive.unpack(root), run, mounts)

    return make
