"""The command line: flags, --check, and specs and ports with which the proxy must not start."""

import os
import re
import socket

import pytest

from support.backend import RawBackend, serve
from support.client import RawClient
from support.http1 import upgrade_request
from support.proxy import free_port, run_proxy
from support.spec import https_spec, ws_spec

EVERYTHING_WRONG = """\
kind: WebSocketServer
name: first
port: 99999
backend: http://localhost:3001
pathh: /x
timeouts: {idle: soon, conect: 1s}
---
kind: HTTPServer
name: second
---
kind: WebSocketServer
name: third
port: 10020
https: true
backend: ws://localhost:3001
headers: {set: {"bad name": x}}
---
kind: WebSocketServer
name: third
port: 10020
backend: ws://localhost:3002
trustedProxies: [10.0.0.0/33]
---
kind: WebSocketServer
port: 10021
"""

# line, column, server, field, a word of what is wrong
ITS_PROBLEMS = [
    (3, 7, "first", "port", "99999"),
    (4, 10, "first", "backend", "http"),
    (5, 1, "first", "pathh", "unknown key"),
    (6, 18, "first", "timeouts.idle", "soon"),
    (6, 24, "first", "timeouts.conect", "did you mean"),
    (8, 7, "second", "kind", "HTTPServer"),
    (14, 8, "third", "https", "certificate"),
    (16, 17, "third", "headers.set", "bad name"),
    (19, 7, "third", "name", "third"),
    (20, 7, "third", "port", "10020"),
    (22, 18, "third", "trustedProxies", "10.0.0.0/33"),
    (24, 1, None, "name", "missing"),
    (24, 1, None, "backend", "missing"),
]


def problems_of(stderr, path):
    """Lines of FILE:LINE:COL: [server "NAME": ]field: what is wrong; what would be right."""
    form = re.compile(rf'{re.escape(str(path))}:(\d+):(\d+): (?:server "([^"]*)": )?([A-Za-z0-9.]+): (.+)')
    found = []
    for line in stderr.splitlines():
        match = form.fullmatch(line)
        assert match, f"not of the form: {line!r}"
        found.append((int(match[1]), int(match[2]), match[3], match[4], match[5]))
    return found


def write(folder, text):
    path = folder / "servers.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("args", [["--check"], []], ids=["check", "start"])
def test_every_problem_at_once(tmp_path, args):
    """One run names every problem of every document, where it stands, in order; nothing is served."""
    path = write(tmp_path, EVERYTHING_WRONG)
    done = run_proxy("--config", str(path), *args)
    assert done.returncode == 1 and done.stdout == ""
    found = problems_of(done.stderr, path)
    assert [f[:4] for f in found] == [p[:4] for p in ITS_PROBLEMS]
    for (*_, text), (*_, word) in zip(found, ITS_PROBLEMS):
        assert word in text
        assert ";" in text, f"it does not say what would be right: {text}"


def test_flag_order_does_not_matter(tmp_path):
    """--check in front of --config is the same."""
    path = write(tmp_path, EVERYTHING_WRONG)
    assert run_proxy("--check", "--config", str(path)).stderr == run_proxy("--config", str(path), "--check").stderr


def test_good_specs_pass(tmp_path, certs):
    """--check of what is right says nothing and exits 0: plain, TLS, several documents, none; it opens no port."""
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        plain = ws_spec(port, 3001)
        tls = https_spec(port, backend="wss://localhost:3001", certs=certs, name="ns/tls", certFile=None)
        tls = tls.replace("certFile: null\n", "")
        for text in (plain, tls, plain + "---\n" + ws_spec(port + 1, 3001, name="other"), "", "# nothing\n"):
            done = run_proxy("--check", "--config", str(write(tmp_path, text)))
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), text


@pytest.mark.parametrize(
    "text",
    [
        "a: [\n",
        "\tkind: x\n",
        b"kind: \xff\xfe\n",
        b"kind: Web\0Socket\n",
        "kind: WebSocketServer\nname: &a x\nport: *a\n",
        "- 1\n- 2\n",
        "just words\n",
        "&a [*a]\n",
        "[" * 100_000,
        "{" * 100_000,
        "kind: WebSocketServer\n" + "x: " + "y" * 2_000_000,
    ],
    ids=["flow", "tab", "not utf-8", "nul", "alias", "list", "scalar", "alias of itself", "deep list", "deep map", "long"],
)
@pytest.mark.parametrize("args", [["--check"], []], ids=["check", "start"])
def test_no_yaml(tmp_path, text, args):
    """What is no YAML, or YAML with more than we read, is a problem with its place, and no more than that."""
    path = write(tmp_path, text)
    done = run_proxy("--config", str(path), *args)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr
    for line in done.stderr.splitlines():
        assert re.match(rf"{re.escape(str(path))}(:\d+:\d+)?: .", line), line
        assert len(line) < 1000 and line.isprintable()


@pytest.mark.parametrize("args", [["--check"], []], ids=["check", "start"])
@pytest.mark.parametrize("what", ["missing", "folder", "fifo"])
def test_no_file(tmp_path, what, args):
    """A spec that is not there, or no file, ends the run with its name and the reason, without waiting."""
    path = tmp_path / "servers.yaml"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    done = run_proxy("--config", str(path), *args)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{path}: ") and done.stderr.count("\n") == 1
    if what == "missing":
        assert "No such file" in done.stderr


def test_keys_are_not_quoted(tmp_path, certs):
    """A key in the wrong place or of the wrong kind is a problem that does not show it."""
    secret = certs.b64(certs.server.key)
    pem = "".join(certs.server.key.decode().split("\n")[1:-2])
    cases = [
        https_spec(1234, 3001, certs=certs).replace(certs.b64(certs.server.cert), secret),
        https_spec(1234, 3001, certs=certs).replace(secret, secret[:-8]),
        https_spec(1234, 3001, certs=certs).replace(secret, certs.b64(certs.client.key)),
        ws_spec(1234, 3001, keyBase64=secret),
        ws_spec(1234, 3001, https=True, tls={"certFile": secret, "keyFile": secret}),
        ws_spec(1234, 3001, backendTLS={"caBase64": secret}),
    ]
    for text in cases:
        path = write(tmp_path, text)
        for args in (["--check"], []):
            done = run_proxy("--config", str(path), *args)
            assert done.returncode == 1 and problems_of(done.stderr, path)
            for text_of_key in (secret, pem):
                for at in range(0, len(text_of_key) - 16):
                    assert text_of_key[at : at + 16] not in done.stderr


def test_one_bad_document_keeps_all_from_starting(tmp_path):
    """Without a run dir a file is served whole or not at all: the good server's port stays closed."""
    port = free_port()
    path = write(tmp_path, ws_spec(port, 3001, name="good") + "---\n" + ws_spec(port + 1, 3001, name="bad", nope=1))
    done = run_proxy("--config", str(path))
    assert done.returncode == 1
    assert [p[2:4] for p in problems_of(done.stderr, path)] == [("bad", "nope")]
    with pytest.raises(ConnectionRefusedError):
        RawClient(port)


@pytest.mark.parametrize("reuse", [False, True], ids=["plain", "reuseport"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1"])
def test_port_already_taken(tmp_path, address, reuse):
    """A port that someone else holds ends the start with a line that names server and port; nothing is split."""
    port = free_port()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as taken:
        if reuse:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind((address, port))
        taken.listen()
        path = write(tmp_path, ws_spec(free_port(), 3001, name="fine") + "---\n" + ws_spec(port, 3001, name="ns/late"))
        done = run_proxy("--config", str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f'{path}: server "ns/late": port: {port}: Address already in use; free it, or give another one\n'
    )


def test_second_proxy_on_the_same_ports(tmp_path, start_proxy):
    """S58, its first half: the second start fails cleanly, the first proxy serves on."""
    with RawBackend(serve) as backend:
        port = free_port()
        spec = ws_spec(port, backend.port)
        start_proxy(spec)
        done = run_proxy("--config", str(write(tmp_path, spec)))
        assert done.returncode == 1 and str(port) in done.stderr
        for _ in range(20):
            with RawClient(port) as client:
                assert client.answer(upgrade_request()).status == 101


def test_help_and_version():
    """They go to stdout and exit 0; the help names every flag."""
    done = run_proxy("--help")
    assert done.returncode == 0 and done.stderr == ""
    for flag in ("--config", "--check", "--connect", "--log-level", "--version", "--help"):
        assert flag in done.stdout
    done = run_proxy("--version")
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(r"tidegate-proxy \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    "args",
    [
        ["--nope"],
        ["--config"],
        ["--config="],
        ["-c", "x"],
        ["servers.yaml"],
        ["--check", "servers.yaml"],
        ["--log-level", "loud"],
        ["--log-level", ""],
        ["--log-level"],
        ["--connect"],
        ["--check=yes"],
    ],
    ids=" ".join,
)
def test_bad_flags(args):
    """A command line that is none exits 2 and says on stderr which word it was, or where help is."""
    done = run_proxy(*args)
    assert done.stdout == ""
    if args == ["--config="]:  # a well-formed flag: a file without a name
        assert done.returncode == 1 and "No such file" in done.stderr
        return
    assert done.returncode == 2, done.stderr
    assert "tidegate-proxy" in done.stderr
    assert "--help" in done.stderr or "debug, info, warn or error" in done.stderr


def test_quiet_log_level(tmp_path):
    """--log-level error: an ordinary start says nothing; what keeps it from starting is still said."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        path = write(tmp_path, ws_spec(taken.getsockname()[1], 3001))
        done = run_proxy("--config", str(path), "--log-level", "error")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "in use" in done.stderr
