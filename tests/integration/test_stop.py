"""--stop: the process that holds a run dir's lock is ended, no other, and waited for."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support.need import cannot_run
from support.proxy import BINARY, run_proxy, serving_flags
from support.wait import wait_until

# Stands in for a proxy: takes the lock as rundir.h says, then does what argv[2] says about TERM.
HOLDER = """
import fcntl, os, signal, sys, time
f = open(sys.argv[1] + "/proxy.pid", "r+" if os.path.exists(sys.argv[1] + "/proxy.pid") else "w+")
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
def slow(*_):
    print("term", flush=True)
    sys.stdin.readline()  # the drain lasts until the test says so
    sys.exit(0)
if sys.argv[2] == "slow":
    signal.signal(signal.SIGTERM, slow)
print("held", flush=True)
while True:
    signal.pause()
"""


class Holder:
    def __init__(self, folder, how="quick"):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "held\n"

    def alive(self):
        return self.process.poll() is None

    def close(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def hold(tmp_path):
    holders = []

    def make(how="quick"):
        holders.append(Holder(tmp_path, how))
        return holders[-1]

    yield make
    for holder in holders:
        holder.close()


def start_stop(folder, *args):
    return subprocess.Popen([BINARY, "--stop", "--run-dir", str(folder), *args], stderr=subprocess.PIPE, text=True)


def test_the_holder_is_ended(tmp_path, hold):
    """TERM reaches it, and --stop exits 0 without a word."""
    holder = hold()
    done = run_proxy("--stop", "--run-dir", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert holder.process.wait(5) == -signal.SIGTERM


def test_it_waits_until_the_holder_is_gone(tmp_path, hold):
    """A drain keeps it: it ends after the holder, not at its TERM."""
    holder = hold("slow")
    stop = start_stop(tmp_path)
    try:
        assert holder.process.stdout.readline() == "term\n"
        with pytest.raises(subprocess.TimeoutExpired):
            stop.wait(0.3)
        holder.process.stdin.write("\n")
        holder.process.stdin.flush()
        assert stop.wait(5) == 0
        assert holder.process.wait(5) == 0
    finally:
        stop.kill()
        stop.communicate()


def test_the_delay_comes_first(tmp_path, hold):
    """The holder serves on for that long, and is ended then."""
    holder = hold()
    begin = time.monotonic()
    stop = start_stop(tmp_path, "--delay", "700ms")
    try:
        assert holder.process.wait(10) == -signal.SIGTERM
        assert time.monotonic() - begin >= 0.7
        assert stop.wait(5) == 0
    finally:
        stop.kill()
        stop.communicate()


def test_term_ends_the_delay_and_leaves_the_holder_alone(tmp_path, hold):
    """Whoever waits in --delay can be sent away."""
    holder = hold()
    stop = start_stop(tmp_path, "--delay", "1h")
    try:
        wait_until("it sleeps", lambda: "nanosleep" in _wchan(stop.pid))
        stop.terminate()
        assert stop.wait(5) == -signal.SIGTERM
        assert holder.alive()
    finally:
        stop.kill()
        stop.communicate()


def _wchan(pid):
    """What a process waits in; where the kernel does not tell, whether it sleeps."""
    with open(f"/proc/{pid}/wchan") as f:
        name = f.read()
    if name not in ("", "0"):
        return name
    with open(f"/proc/{pid}/syscall") as f:
        number = f.read().split()[0]
    return "nanosleep" if number in ("230", "115", "407") else ""  # x86-64, arm64, 32 bit


def test_nobody_there(tmp_path):
    """No proxy.pid: exit 0, said."""
    done = run_proxy("--stop", "--run-dir", str(tmp_path))
    assert done.returncode == 0
    assert "no proxy runs" in done.stderr and str(tmp_path) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stale_pid_file_names_nobody(tmp_path):
    """S58: the number in it is another process's by now: that one is left alone."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "proxy.pid").write_text(f"{bystander.pid}\n")
        done = run_proxy("--stop", "--run-dir", str(tmp_path))
        assert done.returncode == 0 and "no proxy runs" in done.stderr
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_lock_counts_not_the_number_in_the_file(tmp_path, hold):
    """The file names one process, another holds the lock: that one is ended."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "proxy.pid").write_text(f"{bystander.pid}\n")
        holder = hold()
        assert run_proxy("--stop", "--run-dir", str(tmp_path)).returncode == 0
        assert holder.process.wait(5) == -signal.SIGTERM
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_no_directory(tmp_path):
    """Exit 1 with the name: a mistyped DIR is no success."""
    done = run_proxy("--stop", "--run-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"{tmp_path}/none: No such file" in done.stderr


@pytest.mark.parametrize("plant", ["link", "fifo", "folder"])
def test_planted_pid_files(tmp_path, hold, plant):
    """S46: what is no regular file is refused at once, neither followed nor waited for; nobody is signalled."""
    (tmp_path / "elsewhere").mkdir()
    other = Holder(tmp_path / "elsewhere")
    path = tmp_path / "proxy.pid"
    try:
        if plant == "link":
            path.symlink_to(tmp_path / "elsewhere" / "proxy.pid")
        elif plant == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        done = run_proxy("--stop", "--run-dir", str(tmp_path), timeout=5)
        assert done.returncode == 1 and str(path) in done.stderr
        assert other.alive()
    finally:
        other.close()


def pid_namespace():
    """Words in front of a command."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]  # in a chroot there is no user namespace
    wrap = ["unshare", *user, "--pid", "--fork"]
    if subprocess.run([*wrap, "true"], capture_output=True).returncode != 0:
        cannot_run("no PID namespace may be made here")
    return wrap


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a shell"])
def test_process_1_of_a_container_does_not_take_along_who_stops_it(tmp_path, beside):
    """kubelet would call that preStop a failed one, at the end of each sidecar. Others in the container it takes along, later."""
    if os.geteuid() != 0:
        cannot_run("needs root to enter a PID namespace")
    (tmp_path / "spec.yaml").write_text("")
    words = ["--config", str(tmp_path / "spec.yaml"), "--run-dir", str(tmp_path), *serving_flags()]
    proxy = subprocess.Popen([*pid_namespace(), "--kill-child", BINARY, *words], stderr=subprocess.DEVNULL)
    others = []
    try:
        wait_until("it serves", (tmp_path / "status.json").exists)
        children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        inside = ["nsenter", "--target", children[0], "--pid", "--"]
        if beside:
            others.append(subprocess.Popen([*inside, "sleep", "100"]))
        done = subprocess.run([*inside, BINARY, "--stop", "--run-dir", str(tmp_path)], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.wait(10) == 0
    finally:
        for process in (proxy, *others):
            process.kill()
            process.wait()


def test_a_holder_of_another_pid_namespace(tmp_path, hold):
    """It cannot be named from there: exit 1 and why; no signal."""
    wrap = pid_namespace()
    holder = hold()
    done = subprocess.run(
        [*wrap, BINARY, "--stop", "--run-dir", str(tmp_path)], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 1 and "another PID namespace" in done.stderr
    assert holder.alive()


def test_a_holder_that_may_not_be_signalled():
    """Another user's proxy: exit 1 and why."""
    if os.geteuid() != 0:
        cannot_run("needs root to become somebody else")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o755)
        holder = Holder(folder)
        try:
            os.chmod(folder + "/proxy.pid", 0o644)
            done = subprocess.run(
                [*nobody, BINARY, "--stop", "--run-dir", folder], capture_output=True, text=True, timeout=10
            )
            assert done.returncode == 1
            assert f"process {holder.process.pid}: Operation not permitted" in done.stderr
            assert holder.alive()
        finally:
            holder.close()
