"""Two replicas and one Lease: every one of them serves, one of them writes, and another takes over when it must."""

import os
import signal

import pytest

from gateway import Still, Watch, echoes, network_of, server
from support.backend import RawBackend, echo_as
from support.need import cannot_run
from support.proxy import free_port
from support.wait import wait_until

TAKEOVER_SECONDS = 30  # 15 s of the Lease, and a look each 2 to 4.4 s


@pytest.fixture
def pair(start_gateway):
    """Two gateways of one release; the second one's proxy has a network of its own, as another pod has."""
    if os.geteuid():
        cannot_run("a network of a replica's own needs root")
    flags = ["--leader-elect", "--lease", "tidegate"]
    return start_gateway(flags=flags), start_gateway(flags=flags, netns=True)


def holder(gateway):
    """The name of the replica that the Lease names, "" without one."""
    status, lease = gateway.api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{gateway.release}/leases/tidegate")
    return (lease["spec"].get("holderIdentity") or "").rpartition("_")[0] if status == 200 else ""


def wait_holder(gateway, what, condition, timeout=TAKEOVER_SECONDS):
    return wait_until(what, lambda: condition(name := holder(gateway)) and name, timeout, step=0.1)


def by_name(pair, name):
    return next(g for g in pair if g.name == name)


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0] == "T"


def test_a_stopped_leader_is_replaced_and_nothing_flaps(pair, namespace):
    first, second = pair
    port = free_port()
    with Still(first), RawBackend(echo_as("here")) as here:
        with network_of(second.proxy.pid):
            there = RawBackend(echo_as("there"), port=here.port)
        with there:
            first.apply(server("both", namespace, port, here.port))
            first.wait_condition("both")
            for gateway in pair:
                gateway.wait_programmed("both")
            leader = by_name(pair, wait_holder(first, "a leader", bool))
            other = by_name(pair, ({first.name, second.name} - {leader.name}).pop())
            with Watch(first.api, first.path("both")) as watch:
                leader.controller.process.send_signal(signal.SIGSTOP)
                try:
                    wait_until("stopped", lambda: is_stopped(leader.controller.pid))
                    wait_holder(first, f"{other.name} leads", lambda name: name == other.name)
                    assert not watch.seen, f"the new leader wrote what stood there already: {watch.seen}"
                    for gateway in pair:  # each proxy serves on
                        with network_of(gateway.proxy.pid):
                            assert echoes(port).get("X-Backend") == ("there" if gateway is second else "here")
                    moved = free_port()
                    first.apply(server("both", namespace, moved, here.port))
                    if leader is first:  # what Ready speaks of is the leader's proxy
                        second.wait_condition("both")
                        second.wait_programmed("both")
                    else:
                        first.wait_condition("both")
                finally:
                    leader.controller.process.send_signal(signal.SIGCONT)
                settled = len(watch.seen)
                leader.wait_programmed("both")
                wait_until("the old leader serves the edit", lambda: str(moved) in leader.servers(), 15)
                renewals = lease_renewals(first, 4)
                assert holder(first) == other.name, f"the old leader took it back: {renewals}"
                assert len(watch.seen) == settled, f"the old leader wrote a status: {watch.seen[settled:]}"
                for kind in ("Accepted", "ResolvedRefs"):
                    assert watch.statuses(kind) in ([], ["True"]), watch.statuses(kind)
                for gateway in pair:
                    with network_of(gateway.proxy.pid):
                        echoes(moved)


def lease_renewals(gateway, count):
    """Waits for so many renewals of the Lease: a few turns of everybody's clock."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{gateway.release}/leases/tidegate"
    times = []

    def look():
        now = gateway.api.get(path)["spec"]["renewTime"]
        if now not in times:
            times.append(now)
        return len(times) > count

    wait_until(f"{count} renewals of the Lease", look, 4 * count, step=0.1)
    return times


def test_a_leader_that_ends_gives_the_lease_up_at_once(pair, namespace):
    first, _ = pair
    leader = by_name(pair, wait_holder(first, "a leader", bool))
    other = next(g for g in pair if g is not leader)
    leader.controller.stop()
    wait_holder(first, f"{other.name} leads", lambda name: name == other.name, timeout=8)


def test_the_lease_is_written_as_released_servers_read_it(pair):
    first, _ = pair
    wait_holder(first, "a leader", bool)
    lease = first.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{first.release}/leases/tidegate")["spec"]
    assert lease["leaseDurationSeconds"] == 15 and lease["leaseTransitions"] >= 0, lease
    for key in ("acquireTime", "renewTime"):
        assert len(lease[key]) == len("2026-01-02T03:04:05.000000Z") and lease[key].endswith("Z"), lease
