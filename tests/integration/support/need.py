"""A test that cannot run here: skipped with the reason, but a failure under CI."""

import os

import pytest


def cannot_run(reason):
    if os.environ.get("CI"):
        pytest.fail(f"cannot run, and CI is set: {reason}")
    pytest.skip(reason)
