"""The image: what is in it, that the same sources make the same bytes, and that both programs run from it as a cluster
would run them. deploy/image builds it here; test_engine.py builds deploy/Dockerfile."""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile

import fake
import pytest
from conftest import REPO, Built
from support import frames
from support.backend import RawBackend, echo, server_context
from support.client import RawClient
from support.proxy import Proxy, free_port
from support.spec import ws_spec
from support.wait import wait_until

MOST_BYTES = 15_000_000
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
PROGRAMS = ["usr/bin/tidegate-controller", "usr/bin/tidegate-proxy"]
QUIET = ["--admin", "off"]


def version():
    return re.search(r"project\(tidegate VERSION (\S+)", (REPO / "CMakeLists.txt").read_text()).group(1)


def git(*words):
    return subprocess.check_output(["git", "-C", REPO, *words], text=True).strip()


def run(container, *words):
    return subprocess.run(container.command(*words), capture_output=True, text=True, timeout=30)


def is_library(path):
    return re.search(r"/lib[^/]*\.so[.\d]*$", path)


# made


def test_the_same_sources_make_the_same_digest_at_another_place(built, tmp_path):
    there = tmp_path / "a copy"
    there.mkdir()
    files = git("ls-files", "-co", "--exclude-standard").splitlines()
    for name in [*files, ".git"]:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, there / name, symlinks=True)
        elif (REPO / name).exists():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, there / name)
    other = Built(there, tmp_path / "out", "--name", "localhost/tidegate:other")
    assert other.said["digest"] == built.said["digest"]
    assert other.sbom.read_bytes() == built.sbom.read_bytes()
    assert other.archive.annotations["org.opencontainers.image.ref.name"] == "localhost/tidegate:other"


def test_it_is_small(built, figure):
    assert built.archive.size <= MOST_BYTES
    figure("%.1f MB compressed, %d files, %s", built.archive.size / 1e6, len(built.archive.data), built.said["digest"])


def test_others_can_read_it(built):
    """skopeo agrees about digest, configuration and layer."""
    seen = json.loads(subprocess.check_output(["skopeo", "inspect", f"oci-archive:{built.path}"], timeout=60))
    assert seen["Digest"] == built.said["digest"] == built.archive.digest
    assert seen["Labels"] == built.archive.config["config"]["Labels"]
    folder = built.path.parent / "skopeo"
    subprocess.run(["skopeo", "copy", "-q", f"oci-archive:{built.path}", f"dir:{folder}"], check=True, timeout=60)


def test_its_configuration_says_who_and_what(built):
    config = dict(built.archive.config["config"])
    labels = config.pop("Labels")
    assert config == {"User": "65532:65532", "Env": ["PATH=/usr/bin"], "Cmd": ["tidegate-proxy"], "WorkingDir": "/"}
    label = "org.opencontainers.image."
    assert labels[label + "version"] == version()
    revision = git("rev-parse", "HEAD")
    assert labels[label + "revision"] == revision + ("-dirty" if git("status", "--porcelain") else "")
    created = subprocess.check_output(["date", "-u", "-d", "@" + git("log", "-1", "--format=%ct"), "+%FT%TZ"], text=True)
    assert labels[label + "created"] == created.strip()
    assert {label + name for name in ("title", "description", "source", "licenses")} < labels.keys()


def test_a_wrong_option_is_refused():
    for words in (["--push"], ["--out"], ["--name"]):
        refused = subprocess.run([REPO / "deploy/image", *words], capture_output=True, text=True, timeout=10)
        assert refused.returncode != 0 and words[0] in refused.stderr


# what is in it


def test_nothing_is_in_it_that_nobody_needs(built):
    """Two programs, libraries that they or each other name, authorities, names, licences: no shell, no tool."""
    listing = built.archive.listing()
    files = set(built.archive.data)
    libraries = {p for p in files if is_library(p)}
    loaders = {p for p in files if re.fullmatch(r"usr/lib(64)?/ld-linux[\w.-]*", p)}
    rest = {"etc/group", "etc/nsswitch.conf", "etc/passwd", BUNDLE}
    assert len(loaders) == 1
    assert {p for p in files if not p.startswith("usr/share/doc/")} == {*PROGRAMS, *libraries, *loaders, *rest}
    assert all(p.endswith("/copyright") for p in files if p.startswith("usr/share/doc/"))
    programs = {p for p, (_, mode, *_) in listing.items() if p in files and mode & 0o111}
    assert programs == {*PROGRAMS, *loaders}


def test_every_library_is_named_by_another_file_of_it(built, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    needed, there = set(), set()
    for path, data in built.archive.data.items():
        if data[:4] != b"\x7fELF":
            continue
        (root / "elf").write_bytes(data)
        dynamic = subprocess.check_output(["readelf", "-dW", root / "elf"], text=True)
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
        if is_library(path) or "/ld-linux" in path:
            there.add(path.rpartition("/")[2])
    assert needed == there


def test_nobody_can_write_and_nothing_is_setuid(built):
    for path, (kind, mode, uid, gid, _) in built.archive.listing().items():
        assert (uid, gid) == (0, 0), path
        assert kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE), path
        if kind != tarfile.SYMTYPE:
            assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | 0o022), path
            assert mode & 0o444 == 0o444, path


def test_links_lead_somewhere(built):
    everything = built.archive.listing()
    links = {p: what[4] for p, what in everything.items() if what[0] == tarfile.SYMTYPE}
    assert links
    for path, target in links.items():
        assert target.lstrip("/") in everything, path


def test_programs_are_stripped_and_hardened(built, tmp_path):
    for path in PROGRAMS:
        file = tmp_path / "program"
        file.write_bytes(built.archive.data[path])
        seen = subprocess.check_output(["readelf", "-hldSW", file], text=True)
        assert not re.search(r"\.(symtab|debug_\w+)\b", seen)
        assert re.search(r"Type:\s+DYN", seen) and "GNU_RELRO" in seen and "BIND_NOW" in seen
        assert re.search(r"GNU_STACK.* RW ", seen)
        assert str(REPO).encode() not in built.archive.data[path]


def test_authorities_are_mozillas_and_not_this_machines(built):
    """A CA that was added to this machine must not become trusted by everybody who runs the image."""
    bundle = built.archive.data[BUNDLE]
    assert bundle.count(b"BEGIN CERTIFICATE") > 100
    folder = "/usr/share/ca-certificates/mozilla"
    assert bundle.count(b"BEGIN CERTIFICATE") == len([f for f in os.listdir(folder) if f.endswith(".crt")])
    for name in os.listdir("/usr/local/share/ca-certificates"):
        with open(f"/usr/local/share/ca-certificates/{name}", "rb") as f:
            assert f.read().split(b"-----")[2].strip() not in bundle, name


def test_names_of_users(built):
    assert re.search(r"^\w+:x:65532:65532:", built.archive.data["etc/passwd"].decode(), re.M)
    assert re.search(r"^\w+:x:65532:$", built.archive.data["etc/group"].decode(), re.M)
    assert built.archive.data["etc/nsswitch.conf"] == b"hosts: files dns\n"


# the bill of materials


def owner(path):
    """The package and version of a file of the image, as dpkg says, which may know it with or without /usr."""
    for name in (f"/{path}", f"/{path.removeprefix('usr/')}"):
        found = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
        if found.returncode == 0:
            package = found.stdout.split(": ")[0]
            at = subprocess.check_output(["dpkg-query", "-W", "-f", "${Version}", package], text=True)
            return package.split(":")[0], at
    raise AssertionError(f"{path} belongs to no package")


def test_the_bill_names_the_package_of_every_file(built):
    bill = json.loads(built.sbom.read_text())
    versions = {p["name"]: p["versionInfo"] for p in bill["packages"]}
    libraries = [p for p in built.archive.data if is_library(p) or "/ld-linux" in p]
    owners = dict(owner(p) for p in libraries)
    owners |= dict([owner("usr/share/ca-certificates")])
    assert versions == {**owners, "tidegate": version(), "tidegate image": version()}
    assert {p.split("/")[3] for p in built.archive.data if p.startswith("usr/share/doc/")} == owners.keys()


def test_the_bill_is_spdx(built):
    """What the specification requires of 2.3; identifiers unique, references to what is there, the image by its digest."""
    bill = json.loads(built.sbom.read_text())
    assert (bill["spdxVersion"], bill["dataLicense"], bill["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["creationInfo"]["created"])
    assert bill["name"] and bill["documentNamespace"] and "#" not in bill["documentNamespace"]
    ids = [p["SPDXID"] for p in bill["packages"]]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", i) for i in ids)
    for package in bill["packages"]:
        assert package["name"] and package["downloadLocation"] and package["filesAnalyzed"] is False
        for licence in re.split(r" (?:AND|OR) ", package["licenseDeclared"]):
            assert re.fullmatch(r"[A-Za-z0-9.-]+", licence)
    for link in bill["relationships"]:
        assert {link["spdxElementId"], link["relatedSpdxElement"]} <= {*ids, "SPDXRef-DOCUMENT"}
    (image,) = [p for p in bill["packages"] if p.get("primaryPackagePurpose") == "CONTAINER"]
    assert "sha256:" + image["checksums"][0]["checksumValue"] == built.said["digest"]
    known = [p for p in bill["packages"] if p["licenseDeclared"] != "NOASSERTION"]
    assert len(known) >= len(bill["packages"]) // 2


# it runs: root read-only, user 65532


@pytest.mark.parametrize("program", ["tidegate-proxy", "tidegate-controller"])
def test_programs_start(container, program):
    said = run(container(), program, "--version")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"{program} {version()}\n", "")


def test_the_default_command_is_the_proxy_on_its_default_spec(built, container):
    c = container()
    said = run(c, *built.archive.config["config"]["Cmd"])
    assert said.returncode == 1 and "/run/tidegate/servers.yaml" in said.stderr
    (c.run_dir / "servers.yaml").write_text(ws_spec(10020, 3001))
    os.chown(c.run_dir / "servers.yaml", 65532, 65532)
    assert run(c, "tidegate-proxy", "--check").returncode == 0
    (c.run_dir / "servers.yaml").write_text("kind: WebSocketServer\nport: 0\n")
    assert run(c, "tidegate-proxy", "--check").returncode == 1


def test_the_root_is_not_written_to(container):
    c = container()
    said = run(c, "tidegate-proxy", "--config", "/run/tidegate/none", "--run-dir", "/etc/tidegate", *QUIET)
    assert said.returncode == 1 and "/etc/tidegate" in said.stderr


def test_a_wss_backend_is_verified_by_the_authorities_of_the_image(container, certs, tmp_path):
    """An unknown CA is refused; put in the place of the bundle, it is believed: so that place is what is read."""
    with RawBackend(echo, tls=server_context(certs.server)) as backend:
        url = f"wss://localhost:{backend.port}/"
        refused = run(container(), "tidegate-proxy", "--connect", url)
        assert refused.returncode == 1 and "certificate" in refused.stderr
    with RawBackend(echo, tls=server_context(certs.server)) as backend:
        url = f"wss://localhost:{backend.port}/"
        c = container({f"/{BUNDLE}": certs.ca.cert_path})
        said = run(c, "tidegate-proxy", "--connect", url)
        assert said.returncode == 0, said
        assert "status: 101" in said.stdout


@contextlib.contextmanager
def running(command, **kw):
    process = Proxy(command, **kw)
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    process.stop()


def test_the_pair_serves_an_object_from_it(container, certs, tmp_path):
    """Controller and proxy share a run dir: an API server and a wss backend, both by name, an object, a client."""
    (tmp_path / "api").mkdir()
    api = fake.Fake(tmp_path / "api", certs)
    kubeconfig = api.kubeconfig()
    run_dir = tmp_path / "run"
    c = container({f"/{BUNDLE}": certs.ca.cert_path})
    for name in ("ca.crt", "token", kubeconfig.name):
        text = (tmp_path / "api" / name).read_text()
        (run_dir / name).write_text(text.replace("https://127.0.0.1:", "https://localhost:"))
        os.chown(run_dir / name, 65532, 65532)
    port = free_port()
    with contextlib.closing(api), RawBackend(echo, tls=server_context(certs.server)) as backend:
        api.put("websocketservers", fake.websocket_server("chat", port, backend=f"wss://localhost:{backend.port}"))
        controller = c.command("tidegate-controller", "--kubeconfig", f"/run/tidegate/{kubeconfig.name}", "--run-dir",
                               "/run/tidegate", "--allow-local-backends", *QUIET)  # fmt: skip
        proxy = c.command("tidegate-proxy", "--run-dir", "/run/tidegate", "--workers", "1", *QUIET)
        env = {"POD_NAME": "tidegate-0", "POD_NAMESPACE": "tidegate"}
        with running(controller, env=env), running(proxy, run_dir=run_dir) as served:
            served.wait_status("a server", lambda s: any(one["state"] == "active" for one in s["servers"]), 20)
            with RawClient(port) as client:
                client.handshake()
                client.send_frame(frames.TEXT, "hello")
                assert client.read_frame().payload == b"hello"
            wait_until("its status says Ready", lambda: is_ready(api), 10)


def is_ready(api):
    """Does the last status that was written say so?"""
    written = api.seen("patch", "websocketservers")
    conditions = written[-1].json["status"]["conditions"] if written else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
