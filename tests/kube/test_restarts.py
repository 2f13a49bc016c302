"""Either process ends and comes back, or cannot write: what is served then, and what the objects say."""

import json
import time

from gateway import echoes, server, service
from support.backend import RawBackend, echo, echo_as
from support.proxy import free_port
from support.wait import wait_until


def test_a_bad_object_inherits_nothing_from_a_deleted_one_of_its_name(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("again", namespace, port, backend.port))
        gateway.wait_condition("again")
        folder = gateway.path("again").rsplit("/", 1)[0]
        gateway.api.must("DELETE", gateway.path("again"))
        gateway.api.must("POST", folder, server("again", namespace, port, "ws://nosuch:80"))  # within one pass
        gateway.wait_condition("again", "Programmed", "False", says="Nothing of it is served")
        assert "/again" not in gateway.servers()


def test_a_proxy_that_comes_back_and_takes_nothing_is_no_longer_programmed(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("held", namespace, port, backend.port))
        gateway.wait_condition("held")
        gateway.proxy.stop()
        status = json.loads((gateway.run_dir / "status.json").read_text())
        seen = {"revision": status["revision"], "result": "refused", "errors": ["no memory"]}
        status |= {"revision": None, "seen": seen, "servers": []}
        (gateway.run_dir / "status.new").write_text(json.dumps(status))
        (gateway.run_dir / "status.new").rename(gateway.run_dir / "status.json")
        gateway.wait_condition("held", "Programmed", "False", "ReloadFailed", says="no memory")
        gateway.wait_condition("held", "Ready", "False")
        gateway.start_proxy()
        gateway.wait_condition("held")
        echoes(port)


def test_the_time_of_the_last_reload_is_that_of_a_reload(gateway, namespace):
    name = "tidegate_controller_config_last_reload_success_timestamp_seconds"
    with RawBackend(echo) as backend:
        gateway.apply(server("one", namespace, free_port(), backend.port))
        gateway.wait_condition("one")
        before = gateway.controller.metric(name)
        path = gateway.run_dir / "status.json"
        wait_until("a second later", lambda: time.time() > before + 1.5)
        status = json.loads(path.read_text())
        status["servers"][0]["connections"] = 5  # counts alone are no reload
        (gateway.run_dir / "status.new").write_text(json.dumps(status))
        (gateway.run_dir / "status.new").rename(path)
        seen = gateway.controller.metric("tidegate_controller_reconciles_total")
        gateway.apply(service("unrelated", namespace, 80))
        wait_until("a pass", lambda: gateway.controller.metric("tidegate_controller_reconciles_total") > seen)
        assert gateway.controller.metric(name) == before


def test_a_file_that_cannot_be_written_is_said_and_tried_again(gateway, namespace):
    port, other, third = free_port(), free_port(), free_port()
    with RawBackend(echo_as("old")) as old, RawBackend(echo_as("new")) as new:
        gateway.apply(server("edited", namespace, port, old.port), server("still", namespace, third, old.port))
        gateway.wait_settled("edited", "still")
        blocked = gateway.run_dir / "servers.yaml.tmp"
        blocked.mkdir()
        gateway.apply(server("edited", namespace, port, new.port), server("young", namespace, other, new.port))
        gateway.wait_condition("edited", "Programmed", "False", "ReloadFailed", says="The last good version keeps serving")
        gateway.wait_condition("young", "Programmed", "False", "ReloadFailed", says="does not serve it")
        gateway.wait_condition("still")
        assert echoes(port).get("X-Backend") == "old"
        blocked.rmdir()
        gateway.wait_settled("edited", "young", "still")
        assert echoes(port).get("X-Backend") == "new"
