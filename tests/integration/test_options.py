"""The command line: what is taken, and the sentence that each wrong value gets."""

import pytest

from support.proxy import run_proxy
from support.spec import ws_spec

WRONG = [
    # flags, words of the sentence: the flag and what would be right
    (["--workers", "0"], ["--workers 0", "auto", "from 1 to 256"]),
    (["--workers", "257"], ["--workers 257", "from 1 to 256"]),
    (["--workers", "-1"], ["--workers -1", "from 1 to 256"]),
    (["--workers", "2x"], ["--workers 2x", "auto"]),
    (["--workers", "02"], ["--workers 02", "auto"]),
    (["--workers", "AUTO"], ["--workers AUTO", "auto"]),
    (["--workers", "18446744073709551617"], ["--workers", "from 1 to 256"]),
    (["--workers", ""], ["--workers", "auto"]),
    (["--run-dir", ""], ["--run-dir", "directory"]),
    (["--admin", ""], ["--admin", "off", "127.0.0.1:9901"]),
    (["--admin", "9901"], ["--admin 9901", ":9901"]),
    (["--admin", "127.0.0.1"], ["--admin 127.0.0.1", ":9901"]),
    (["--admin", "127.0.0.1:0"], ["--admin", ":9901"]),
    (["--admin", "127.0.0.1:65536"], ["--admin", ":9901"]),
    (["--admin", "127.0.0.1:99x"], ["--admin", ":9901"]),
    (["--admin", "localhost:9901"], ["--admin localhost:9901", "address"]),
    (["--admin", "::1:9901"], ["--admin ::1:9901", "[::1]:9901"]),
    (["--admin", "[127.0.0.1]:9901"], ["--admin", "127.0.0.1:9901"]),
    (["--admin", "[]:9901"], ["--admin", "[::1]:9901"]),
    (["--admin", "[" + "1" * 100 + "]:9901"], ["--admin", "[::1]:9901"]),
    (["--health", "on"], ["--health on", "off", ":9901"]),
    (["--max-drain", "0s"], ["--max-drain 0s", "above 0", "leave it out"]),
    (["--max-drain", "30"], ["--max-drain", "like 5s"]),
    (["--max-drain", "25h"], ["--max-drain", "24h"]),
    (["--max-drain", "1us"], ["--max-drain", "millisecond"]),
    (["--max-drain", ""], ["--max-drain", "like 5s"]),
    (["--stop", "--run-dir", "/", "--delay", "soon"], ["--delay", "like 5s"]),
    (["--stop", "--run-dir", "/", "--delay", "-1s"], ["--delay", "like 5s"]),
    (["--delay", "5s"], ["--delay", "--stop"]),
    (["--check", "--delay", "0s"], ["--delay", "--stop"]),
    (["--stop"], ["--stop", "--run-dir"]),
    (["--stop", "--check"], ["--stop", "--check", "one of them"]),
    (["--check", "--connect", "ws://127.0.0.1:1"], ["--check", "--connect", "one of them"]),
    (["--connect", "ws://127.0.0.1:1", "--run-dir", "/", "--stop"], ["--connect", "--stop", "one of them"]),
    (["--worker", "256"], ["--worker", "from 0 to 255"]),
    (["--worker", "0", "--check"], ["--worker", "--check", "one of them"]),
    (["--workers"], ["--help"]),
    (["--stop=now"], ["--help"]),
    (["--w", "1"], ["--help"]),
]


@pytest.mark.parametrize("args, words", WRONG, ids=[" ".join(args)[:40] for args, _ in WRONG])
def test_wrong_values_are_named(args, words):
    """Exit 2, nothing on stdout, and one sentence with the flag in it and what would be right."""
    done = run_proxy(*args)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "tidegate-proxy: " in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--workers", "auto"],
        ["--workers", "1"],
        ["--workers", "256"],
        ["--admin", "off"],
        ["--admin", ":1"],
        ["--admin", "0.0.0.0:65535"],
        ["--admin", "[::]:9901"],
        ["--admin", "[2001:db8::1]:9901"],
        ["--health", "off"],
        ["--health", ":9900"],
        ["--max-drain", "1ms"],
        ["--max-drain", "24h"],
        ["--run-dir", "nowhere"],
        ["--check"],
    ],
    ids=" ".join,
)
def test_right_values_are_taken(tmp_path, args):
    """They pass; the check that is asked for beside them decides."""
    path = tmp_path / "servers.yaml"
    path.write_text(ws_spec(10020, 3001))
    done = run_proxy("--check", "--config", str(path), *args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_names_every_flag_of_a_person():
    """All but the one that the master starts its workers with; no line is too long for a terminal of 120."""
    done = run_proxy("--help")
    assert done.returncode == 0
    for flag in ("--run-dir DIR", "--workers N|auto", "--admin ADDR:PORT", "--health ADDR:PORT", "--max-drain DURATION",
                 "--deny-local-backends", "--stop", "--delay DURATION"):
        assert flag in done.stdout
    assert "--worker " not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_a_check_touches_nothing_of_the_run_dir(tmp_path):
    """--check beside --run-dir takes no lock and leaves no file."""
    path = tmp_path / "servers.yaml"
    path.write_text(ws_spec(10020, 3001))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    assert run_proxy("--check", "--config", str(path), "--run-dir", str(run_dir)).returncode == 0
    assert list(run_dir.iterdir()) == []
