"""deploy/Dockerfile, really built: by buildah, on a Debian that debootstrap made from this machine's own mirror."""

import os
import re
import subprocess

import pytest
from archive import Archive
from conftest import REPO
from support.need import cannot_run

MADE_BY = ("io.buildah.version",)


@pytest.fixture(scope="module")
def by_engine(built, tmp_path_factory):
    if os.geteuid() != 0:
        cannot_run("buildah and debootstrap need root here")
    path = tmp_path_factory.mktemp("engine") / "image.tar"
    labels = built.archive.config["config"]["Labels"]
    args = [f"{name.upper()}={labels['org.opencontainers.image.' + name]}" for name in ("version", "revision", "created")]
    made = subprocess.run([REPO / "tests/image/engine", path, *(w for a in args for w in ("--build-arg", a))],
                          capture_output=True, text=True, timeout=580)  # fmt: skip
    assert made.returncode == 0, (made.stdout + made.stderr)[-4000:]
    return Archive(path)


def test_both_ways_make_the_same_files(built, by_engine):
    """Names, types, modes, owners and targets. Their bytes may differ: the base has its own versions of the packages."""
    assert by_engine.listing() == built.archive.listing()


def test_both_ways_make_the_same_configuration(built, by_engine):
    config = by_engine.config["config"]
    labels = {k: v for k, v in config["Labels"].items() if k not in MADE_BY}
    assert {**config, "Labels": labels} == built.archive.config["config"]
    assert len(by_engine.manifest["layers"]) == 1


def test_files_that_are_no_packages_are_the_same_bytes(built, by_engine):
    ours = [p for p in built.archive.data if re.match(r"etc/(passwd|group|nsswitch)", p)]
    assert len(ours) == 3
    for path in ours:
        assert by_engine.data[path] == built.archive.data[path]


def test_the_dockerfile_alone_says_the_version_of_this_tree():
    version = re.search(r"project\(tidegate VERSION (\S+)", (REPO / "CMakeLists.txt").read_text()).group(1)
    text = (REPO / "deploy/Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.*)$", text, re.M) == [version]
