"""The README, done as it says: every command block, in its order, and what it shows of their output. The cluster's blocks go on
from each other, as they do for the reader."""

import os
import re
import subprocess

import pytest
import yaml

from blocks import LANGUAGES, anchors_of, blocks_of, commands_of
from reader import quoted
from server import REPO
from support.wait import wait_until

README = REPO / "README.md"
BLOCKS = blocks_of(README)
PAGES = [REPO / name for name in subprocess.run(["git", "ls-files", "*README.md", "*RULES.md"], cwd=REPO, check=True,
                                                capture_output=True, text=True).stdout.split()]  # fmt: skip
REGISTRY = "docker.io/library"  # where a node looks first, and finds what was put into it
PORT_FORWARD = re.compile(r"kubectl port-forward ")
NOT_RUN = {
    "tests/run": "it is what runs this",
    "skopeo copy": "there is no registry here: the node is given the same archive by hand",
}


def reason_not_to_run(command):
    return next((why for start, why in NOT_RUN.items() if re.match(rf"{re.escape(start)}\b", command)), None)


FIRST = [c for b in BLOCKS if b.heading == "Two commands" for c in commands_of(b.text) if not reason_not_to_run(c)]


@pytest.mark.parametrize("command", FIRST)
def test_a_quickstart_relays_a_message_and_stays_up_until_it_is_interrupted(machine, command):
    said = machine.interrupt(command, "Up until Ctrl-C")
    assert "came back Hello, Tidegate!" in said, said[-3000:]


def alike(text):
    """Lines of words, without what is never the same twice: ages, and how wide the columns are."""
    return [" ".join(re.sub(r"\b\d+(s|m|h)\d*s?\b", "AGE", line).split()) for line in text.strip().splitlines()]


@pytest.mark.parametrize("number", [n for n, b in enumerate(BLOCKS) if b.language == "sh" and b.heading != "Two commands"],
                         ids=lambda n: str(BLOCKS[n]))  # fmt: skip
def test_a_block_does_what_it_says(machine, cluster, number):
    text = BLOCKS[number].text.replace("REGISTRY", REGISTRY)
    commands = commands_of(text)
    if PORT_FORWARD.match(commands[0]):
        assert len(commands) == 1, "a command that goes on wants a terminal of its own"
        cluster.leave_running(text, "Forwarding from")
        return
    if commands[0].startswith("deploy/"):
        make_image(machine, cluster, commands)
        return
    if "tidegate.dev/inject" in text:
        policy_is_effective(cluster)
    said = cluster.type(text)
    if "wscat" in text:
        assert quoted(text) in said, said
    after = BLOCKS[number + 1 : number + 2]
    if after and after[0].language == "output":
        assert alike(said)[-len(alike(after[0].text)) :] == alike(after[0].text)


def make_image(machine, cluster, commands):
    for command in commands:
        if not reason_not_to_run(command):
            machine.type(command, 600)
    archive = re.search(r"oci-archive:(\S+) docker://(\S+)", commands[-1])
    assert cluster.node.import_image(REPO / archive[1]) == [archive[2]]


def policy_is_effective(cluster):
    """A new policy takes a second or two; readers do not type that fast."""
    pod = """kubectl run probe --image=probe --labels=tidegate.dev/inject=true --dry-run=server -o jsonpath='{.spec.initContainers[*].name}'"""
    wait_until("pods are injected", lambda: "tidegate-proxy" in cluster.type(pod), 20, 0.2)


def test_nothing_is_left_of_what_was_installed(cluster):
    """After the last block."""
    kinds = "all,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies"
    gone = f"kubectl get {kinds} --namespace tidegate --selector app.kubernetes.io/name=tidegate --output name"
    wait_until("the release is gone", lambda: not cluster.type(gone).strip(), 120, 0.5)
    policies = "mutatingadmissionpolicies,mutatingadmissionpolicybindings"
    left = cluster.type(f"kubectl get clusterroles,clusterrolebindings,crd,{policies} --output name")
    assert "tidegate" not in left, left


# what is true without a cluster


def test_every_block_of_the_readme_says_what_it_is():
    assert BLOCKS and {b.language for b in BLOCKS} <= LANGUAGES, {str(b) for b in BLOCKS if b.language not in LANGUAGES}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_a_file_that_the_readme_shows_is_right(tmp_path, block):
    """The proxy's own judgement."""
    spec = tmp_path / "websocket.yaml"
    spec.write_text(block.text)
    proxy = os.environ.get("TIDEGATE_PROXY") or REPO / "build/proxy/tidegate-proxy"
    done = subprocess.run([proxy, "--config", spec, "--check"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_links_lead_to_what_is_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            target = target / "README.md" if target.is_dir() else target
            assert anchor in anchors_of(target), link


def leads_to(tree, path):
    for part in path.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def test_fields_and_values_have_the_names_that_the_readme_gives_them():
    """`a.b` in the text is a field of the object or a value of the chart."""
    crd = yaml.safe_load((REPO / "deploy/crd.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    values = yaml.safe_load((REPO / "charts/tidegate/values.yaml").read_text())
    ours = README.read_text().partition("What sources, documents and issues of the others said")[0]
    names = set(re.findall(r"`([a-z]\w*(?:\.[a-z]\w*)+)(?:[:=]|`)", ours))
    names = {n for n in names if not n.endswith((".h", ".sh", ".yaml"))}
    assert len(names) >= 10
    unknown = {n for n in names if not leads_to(spec, "properties." + n.replace(".", ".properties.")) and not leads_to(values, n)}
    assert not unknown, f"neither fields nor values: {unknown}"


def test_the_figures_are_those_of_the_bench():
    """Each row of the README's table is one of tests/bench/README.md, so that a new measurement is seen here too."""
    bench = {re.sub(r"\*\*", "", line) for line in (REPO / "tests/bench/README.md").read_text().splitlines()}
    figure = re.compile(r"\| (CPU us|what \| p50|.* echo|new connection|idle connection|object |`kubectl|controller started)")
    rows = [line for line in README.read_text().splitlines() if figure.match(line)]
    assert len(rows) >= 10
    assert set(rows) <= bench, set(rows) - bench
