"""Waiting with a deadline, never for a fixed time."""

import threading
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


def at_once(work, names):
    """work(name) for each of them beside each other: for tests that wait for the same fixed deadline."""
    errors = []

    def run(name):
        try:
            work(name)
        except Exception as e:  # noqa: BLE001 - raised below
            errors.append((name, e))

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "no end within 60 s"
    if errors:
        raise AssertionError(f"{errors[0][0]}: {errors[0][1]!r}") from errors[0][1]
