"""Waiting with a deadline, never for a fixed time."""

import time


def wait_until(what, condition, timeout=5.0, step=0.01):
    """Polls condition() until it gives something true and returns that; fails after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(step)
