"""The API server goes away, or the controller does: what is served stays, and what changed meanwhile arrives."""

import signal

import pytest

from gateway import Gateway, Still, b64, echoes, secret, server
from server import REPO, ApiServer
from support import shims
from support.backend import RawBackend, echo, echo_as
from support.client import client_context
from support.proxy import free_port
from support.site import is_open
from support.wait import wait_until

OUTAGE_SECONDS = 65
SPEED = 10
RETURN_SECONDS = 75  # a watch that failed again and again waits up to a minute


@pytest.mark.parametrize("times", [SPEED, pytest.param(1, marks=(pytest.mark.long, pytest.mark.timeout(300)))])
def test_an_api_server_away_for_a_minute_closes_nothing(start_gateway, namespace, tmp_path, shim, times, figure):
    """The controller's minute, for it alone knows the API server: its time runs so many times as fast meanwhile."""
    port, new = free_port(), free_port()
    gateway, clock = start_gateway(wait=False), shims.Clock(tmp_path / "clock")
    if times > 1:
        gateway.env |= {**clock.env, **shim}
    gateway.start()
    with Still(gateway, count=1000, period_ms=1000) as still, RawBackend(echo_as("one")) as one, RawBackend(echo_as("two")) as two:
        gateway.apply(server("edited", namespace, port, one.port))
        gateway.wait_condition("edited")
        with clock.fast(times):
            with gateway.outage():
                over = still.crowd.fresh()["at_ms"] + OUTAGE_SECONDS * 1000 / times
                still.crowd.wait("a minute", lambda r: r["at_ms"] > over, OUTAGE_SECONDS + 20)
                still.crowd.check()
                silent = gateway.controller.metric("tidegate_controller_last_heard_seconds", resource="websocketservers")
                assert silent >= OUTAGE_SECONDS, "by its own clock"
                assert gateway.is_ready(), "it was synced, and what it serves is as good as before"
                assert echoes(port).get("X-Backend") == "one"
            back = still.crowd.fresh()["at_ms"]
            gateway.apply(server("edited", namespace, port, two.port), server("new", namespace, new, two.port))
            gateway.wait_condition("edited", timeout=RETURN_SECONDS)
            gateway.wait_condition("new", timeout=RETURN_SECONDS)
            took = (still.crowd.fresh()["at_ms"] - back) / 1000 * times
        figure("%.1f s of the controller's from the API server's return to what changed then", took)
        assert echoes(port).get("X-Backend") == echoes(new).get("X-Backend") == "two"
        still.crowd.check()


def test_what_changed_before_the_controller_was_back_arrives(gateway, namespace):
    port, gone, new = free_port(), free_port(), free_port()
    with Still(gateway), RawBackend(echo_as("one")) as one, RawBackend(echo_as("two")) as two:
        gateway.apply(server("edited", namespace, port, one.port), server("gone", namespace, gone, one.port))
        gateway.wait_settled("edited", "gone")
        gateway.controller.stop()
        gateway.apply(server("edited", namespace, port, two.port), server("new", namespace, new, two.port))
        gateway.delete("wss", "gone")
        gateway.start_controller()
        gateway.wait_settled("edited", "new")
        assert echoes(port).get("X-Backend") == echoes(new).get("X-Backend") == "two"
        wait_until("the deleted one closed", lambda: not is_open(gone), 10)


def test_a_controller_that_finds_no_api_server_leaves_what_is_served(gateway, namespace):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(server("kept", namespace, port, backend.port))
        gateway.wait_condition("kept")
        before = gateway.servers()
        gateway.controller.stop()
        with gateway.outage():
            controller = gateway.start_controller(wait=False)
            wait_until("it is alive", lambda: is_answered(controller, "/healthz"), 10)
            assert not gateway.is_ready(), "nothing was listed yet"
            assert gateway.servers() == before
            echoes(port)
        gateway.wait_ready(RETURN_SECONDS)
        assert gateway.servers() == before
        echoes(port)


def answers(controller, code):
    """How often the API server has answered so."""
    try:
        return controller.metric("tidegate_controller_api_requests_total", code=code)
    except OSError:
        return 0


def is_answered(process, path):
    try:
        return process.get(path)[0] == 200
    except OSError:
        return False


def test_the_last_good_rendering_outlives_the_controller(gateway, namespace, certs):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(secret("tls", namespace, certs.server),
                      server("kept", namespace, port, backend.port, https=True, tls={"secretRef": {"name": "tls"}}))  # fmt: skip
        gateway.wait_condition("kept")
        gateway.apply(secret("tls", namespace, certs.server) | {"data": {"tls.crt": b64("garbage"), "tls.key": b64("garbage")}})
        gateway.wait_condition("kept", "ResolvedRefs", "False")
        gateway.controller.stop()
        gateway.start_controller()
        gateway.wait_condition("kept", "ResolvedRefs", "False")
        echoes(port, tls=client_context(certs))


def test_a_killed_proxy_comes_back_with_all_that_was_served(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("kept", namespace, port, backend.port))
        gateway.wait_condition("kept")
        gateway.proxies.pop().kill()
        gateway.start_proxy()
        echoes(port)
        gateway.wait_condition("kept")
        other = free_port()
        gateway.apply(server("next", namespace, other, backend.port))
        gateway.wait_condition("next")
        echoes(other)


def test_programmed_waits_for_the_proxy(gateway, namespace):
    """A proxy that does not answer is not taken for one that has obeyed."""
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.proxy.process.send_signal(signal.SIGSTOP)
        try:
            gateway.apply(server("waits", namespace, port, backend.port))
            gateway.wait_condition("waits", "Accepted")
            gateway.wait_condition("waits", "Programmed", "False", timeout=25)
            assert gateway.condition("waits", "Ready")["status"] != "True"
        finally:
            gateway.proxy.process.send_signal(signal.SIGCONT)
        gateway.wait_condition("waits")
        echoes(port)


def test_a_token_that_is_refused_is_read_again(gateway, namespace, api):
    """It rotates in its file; a moment without a good one passes."""
    token = gateway.kubeconfig.with_name(gateway.kubeconfig.name + ".token")
    good, port = token.read_text(), free_port()
    with Still(gateway), RawBackend(echo) as backend:
        token.write_text("not-a-token")
        gateway.controller.stop()
        controller = gateway.start_controller(wait=False)
        wait_until("a 401", lambda: answers(controller, "401"), 10)
        assert controller.alive() and not gateway.is_ready()
        token.write_text(api.token("gateway", namespace))
        gateway.wait_ready(RETURN_SECONDS)
        gateway.apply(server("next", namespace, port, backend.port))
        gateway.wait_condition("next")
        echoes(port)
    gateway.secrets += [good.rpartition(".")[2]]  # its signature


def test_a_gateway_that_is_there_before_its_crd_waits_for_it(tmp_path):
    api = ApiServer(tmp_path / "api", tied=True).up()
    try:
        namespace = api.namespace("early")
        gateway = Gateway(api, tmp_path, namespace)
        try:
            gateway.start_controller(wait=False)
            wait_until("a 404", lambda: answers(gateway.controller, "404"), 10)
            assert not gateway.is_ready()
            api.apply_crd(REPO / "deploy/crd.yaml")
            gateway.start_proxy(wait=False)
            gateway.wait_ready(RETURN_SECONDS)
            port = free_port()
            with RawBackend(echo) as backend:
                gateway.apply(server("first", namespace, port, backend.port))
                gateway.wait_condition("first")
                echoes(port)
            gateway.check_quiet()
            gateway.stop()
        finally:
            gateway.kill()
    finally:
        api.down()
