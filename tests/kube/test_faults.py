"""What a real API server does only by accident: the controller against the scripted one, judged by the requests that it sends
and by what it renders. Time runs faster where a rule speaks of minutes; figures are the controller's seconds."""

import contextlib
import json
import re
import select
import signal
import socket
import threading
import time

import pytest

import fake as faults
from fake import Fake, event, status, websocket_server
from gateway import CONTROLLER, Controller
from support import shims
from support.proxy import free_port
from support.wait import wait_until

SPEED = 20
FIRST_BACKOFF = 0.8  # seconds, at least
LIST, WATCH = "list", "watch"
SERVERS = "websocketservers"


class Rig:
    """The scripted server, and controllers on it that are told the time by us."""

    def __init__(self, folder, certs, shim):
        self.folder, self.shim = folder, shim
        (folder / "fake").mkdir()
        self.fake = Fake(folder / "fake", certs)
        self.kubeconfig = self.fake.kubeconfig()
        self.clock = shims.Clock(folder / "clock")
        self.run = folder / "run"
        self.controllers = []

    def fast(self, times=SPEED):
        return self.clock.fast(times)

    def start(self, *flags, kubeconfig=None, run=None, wait=True, env=None):
        run = run or self.run
        run.mkdir()
        env = {**(env or {}), "POD_NAME": run.name, "POD_NAMESPACE": "tidegate", **self.clock.env, **self.shim}
        self.controller = Controller([CONTROLLER, "--kubeconfig", str(kubeconfig or self.kubeconfig), "--run-dir", str(run),
                                      "--log-level", "debug", "--admin", "off", *flags], env)  # fmt: skip
        self.controllers.append(self.controller)
        if wait:
            for plural in (SERVERS, "secrets", "services", "endpointslices"):
                self.fake.watching(plural)
            wait_until("servers.yaml", (run / "servers.yaml").exists)
        return self.controller

    def rendered(self, run=None):
        """{name: port} of servers.yaml, None before there is one."""
        try:
            text = ((run or self.run) / "servers.yaml").read_text()
        except FileNotFoundError:
            return None
        return {n: int(p) for n, p in re.findall(r'^name: "shop/(.*)"\nport: (\d+)$', text, re.MULTILINE)}

    def wait_rendered(self, wanted, timeout=10):
        def holds():
            return self.rendered() == wanted

        try:
            wait_until(f"{wanted} in servers.yaml", holds, timeout)
        except AssertionError as e:
            last = [(r.verb, r.plural, r.query, r.code) for r in self.fake.requests[-6:]]
            raise AssertionError(f"{e}: {self.rendered()}; {last}; {self.controller.logs[-4:]}") from None

    def put(self, name, port, **kw):
        """An object, and its being rendered."""
        self.fake.put(SERVERS, websocket_server(name, port), **kw)
        wait_until(f"{name} rendered", lambda: (self.rendered() or {}).get(name) == port)

    def steps(self, since, plural=SERVERS):
        """What was asked for of a kind since then: [(verb, code)]."""
        return [(r.verb, r.code) for r in self.fake.seen(plural=plural, since=since) if r.verb in (LIST, WATCH)]

    def some_seconds(self):
        """Waits until 12 seconds of the controller's have passed: what it takes to ask again four times."""
        since = self.fake.mark()
        self.fake.script(WATCH, "services", *[faults.short_watch] * 4)
        self.fake.watching("services").end()
        self.fake.wait(WATCH, "services", 5, since=since, timeout=20)

    def after(self, one, two):
        """The controller's seconds between two requests."""
        return (two.at - one.at) * self.clock.times


@pytest.fixture
def rig(tmp_path, certs, shim):
    one = Rig(tmp_path, certs, shim)
    failures = []
    try:
        yield one
        for controller in one.controllers:
            try:
                controller.stop()
            except AssertionError as e:
                failures.append(str(e))
    finally:
        for controller in one.controllers:
            controller.kill()
        one.fake.close()
    assert not failures, "\n".join(failures)


@pytest.fixture
def watched(rig):
    """A rig whose controller has one object and a watch on its kind."""
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.start()
    rig.wait_rendered({"first": 12001})
    rig.watch = rig.fake.watching(SERVERS)
    wait_until("the status written", lambda: rig.fake.seen("patch", SERVERS))
    return rig


def version_of(rig, plural=SERVERS):
    """Of the last event or list that the controller can have seen of this kind."""
    return max((o["metadata"]["resourceVersion"] for o in rig.fake.objects[plural].values()), key=int)


def later(rig, name, port):
    """An object of which the open watch learns nothing: only what resumes or lists sees it."""
    return rig.fake.put(SERVERS, websocket_server(name, port), tell=False)


# Requests


def test_the_first_list_asks_for_the_newest_in_pages(rig):
    rig.start()
    first = rig.fake.seen(LIST, SERVERS)[0]
    assert first.path == "/apis/tidegate.dev/v1alpha1/websocketservers" and first.query == {"limit": "500"}
    assert first.headers["accept"] == "application/json"
    assert re.fullmatch(r"tidegate-controller/\S+ \(linux/\w+\)", first.headers["user-agent"])
    assert first.token == "token-1"


def test_watches_say_how_long_and_from_where(rig):
    for i in range(3):
        rig.fake.put(SERVERS, websocket_server(f"s{i}", 12000 + i))
    rig.start()
    seconds = set()
    for _ in range(3):
        since = rig.fake.mark()
        request = rig.fake.watching(SERVERS).request
        assert request.query.pop("allowWatchBookmarks") == "true" and request.query.pop("watch") == "1"
        seconds.add(int(request.query.pop("timeoutSeconds")))
        assert int(request.query.pop("resourceVersion")) >= 1003 and not request.query
        rig.fake.watching(SERVERS).end()
        rig.fake.wait(WATCH, SERVERS, since=since)
    assert len(seconds) > 1 and all(300 <= s <= 600 for s in seconds), seconds


@pytest.mark.parametrize("flags, watched, secrets", [
    ([], [""], [""]),
    (["--namespace", "shop", "--namespace", "chat"], ["shop", "chat"], ["shop", "chat"]),
    (["--secret-namespace", "vault", "--secret-namespace", "vault"], [""], ["vault"]),
    (["--secret-namespace", "vault", "--namespace", "shop", "--secret-namespace", "shop"], ["shop"], ["vault", "shop"]),
], ids=["none", "namespaces", "secrets", "both"])  # fmt: skip
def test_only_the_namespaces_that_are_named_are_read(rig, flags, watched, secrets):
    rig.start(*flags)
    wanted = {"secrets": secrets} | dict.fromkeys((SERVERS, "services", "endpointslices"), watched)
    for plural, namespaces in wanted.items():
        for verb in (LIST, WATCH):
            rig.fake.wait(verb, plural, len(namespaces))
            asked = {re.search(r"(?:/namespaces/(\w+))?/" + plural + "$", r.path).group(1) or "" for r in rig.fake.seen(verb, plural)}
            assert asked == set(namespaces), (verb, plural, flags)
            assert len(rig.fake.seen(verb, plural)) == len(namespaces), "each once"


def test_pages_are_followed_to_the_end(rig):
    rig.fake.page = 2
    for i in range(5):
        rig.fake.put(SERVERS, websocket_server(f"s{i}", 12000 + i))
    rig.start()
    rig.wait_rendered({f"s{i}": 12000 + i for i in range(5)})
    lists = [r.query for r in rig.fake.seen(LIST, SERVERS)]
    assert lists == [{"limit": "500"}, {"limit": "500", "continue": "token-2"}, {"limit": "500", "continue": "token-4"}]


def test_a_term_ends_open_watches_at_once(watched):
    watched.controller.process.send_signal(signal.SIGTERM)
    assert watched.controller.process.wait(1) == 0


# Bytes


def test_events_that_come_byte_by_byte(watched):
    for i in range(2):
        obj = later(watched, f"bytes{i}", 12010 + i)
        watched.watch.event("ADDED", obj, step=1)
    watched.wait_rendered({"first": 12001, "bytes0": 12010, "bytes1": 12011})


def test_three_events_and_half_of_one_in_a_chunk(watched):
    lines = b"".join(event("ADDED", later(watched, f"n{i}", 12010 + i)) for i in range(4))
    cut = len(lines) - 100
    watched.watch.send(lines[:cut])
    watched.wait_rendered({"first": 12001, "n0": 12010, "n1": 12011, "n2": 12012})
    watched.watch.send(lines[cut:])
    watched.wait_rendered({"first": 12001, "n0": 12010, "n1": 12011, "n2": 12012, "n3": 12013})


def test_an_object_of_2_mib(watched):
    since = watched.fake.mark()
    obj = websocket_server("large", 12010)
    obj["metadata"]["annotations"] = {"large": "x" * (2 << 20)}
    watched.fake.put(SERVERS, obj)
    watched.wait_rendered({"first": 12001, "large": 12010})
    assert watched.steps(since) == []


def test_a_line_that_is_no_json(watched):
    """The watch is given up, and after a moment everything is listed anew; what is served stays meanwhile."""
    since, last, at = watched.fake.mark(), version_of(watched), time.monotonic()
    later(watched, "second", 12002)
    watched.watch.send(b'{"type": "ADDED", "object": nonsense}\n')
    (again,) = watched.fake.wait(LIST, SERVERS, since=since)
    assert again.at - at >= FIRST_BACKOFF and again.query == {"resourceVersion": last}, "not older than what was seen"
    watched.wait_rendered({"first": 12001, "second": 12002})
    watched.fake.watching(SERVERS, since)
    assert watched.steps(since) == [(LIST, 200), (WATCH, 200)]


def test_a_line_that_never_ends(watched):
    """A line of 8 MiB is no event; the controller neither grows nor waits for its end."""
    since = watched.fake.mark()
    with contextlib.suppress(faults.Gone):
        for _ in range(40):
            watched.watch.send(b"x" * (1 << 18))
    watched.fake.wait(LIST, SERVERS, since=since)
    watched.fake.watching(SERVERS, since)


def test_an_event_of_an_unknown_type_is_skipped(watched):
    since = watched.fake.mark()
    watched.watch.event("SURPRISE", {**websocket_server("odd", 12009), "kind": "WebSocketServer"})
    watched.put("second", 12002)
    assert "odd" not in watched.rendered()
    assert watched.steps(since) == []


def test_a_table_instead_of_a_list(rig):
    """It is no list, so nothing follows from it, least of all that there are no objects."""
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "1"}, "rows": []}
    rig.fake.script(LIST, SERVERS, faults.answer(200, table), faults.answer(200, b"<html>"))
    rig.start(wait=False)
    lists = rig.fake.wait(LIST, SERVERS, 2)
    assert lists[1].at - lists[0].at >= FIRST_BACKOFF and rig.rendered() is None
    rig.fake.watching(SERVERS)
    rig.wait_rendered({"first": 12001})


# Objects


def test_an_object_that_is_added_twice(watched):
    since, before = watched.fake.mark(), (watched.run / "servers.yaml").stat().st_ino
    watched.watch.event("ADDED", watched.fake.objects[SERVERS]["shop", "first"])
    watched.watch.event("ADDED", watched.fake.objects[SERVERS]["shop", "first"])
    watched.put("second", 12002)
    assert watched.rendered() == {"first": 12001, "second": 12002}
    assert all(r.name != "first" for r in watched.fake.seen("patch", SERVERS, since)), "nothing was new about it"
    assert (watched.run / "servers.yaml").stat().st_ino != before


def test_an_object_that_is_deleted_and_made_again(watched):
    """Another uid is another object: its status begins anew."""
    since = watched.fake.mark()
    watched.fake.drop(SERVERS, "shop", "first")
    watched.put("first", 12005)
    assert watched.rendered() == {"first": 12005}
    patch = watched.fake.wait("patch", SERVERS, since=since)[0]
    assert patch.sub == "status" and {c["observedGeneration"] for c in patch.json["status"]["conditions"]} == {1}


def test_fields_that_are_null(watched):
    obj = websocket_server("nulls", 12002, backends=None, tls=None, headers=None, certBase64=None)
    obj["metadata"] |= {"labels": None, "annotations": None, "ownerReferences": None, "managedFields": None}
    obj["status"] = None
    watched.fake.put(SERVERS, obj)
    watched.wait_rendered({"first": 12001, "nulls": 12002})


@pytest.mark.parametrize("obj", [
    {"metadata": {"name": "../x", "namespace": "shop"}, "spec": {"port": 12009}},
    {"metadata": {"name": "x", "namespace": "../.."}, "spec": {"port": 12009}},
    {"metadata": {"name": "odd", "namespace": "shop"}, "spec": None},
    {"metadata": {"name": "odd", "namespace": "shop"}, "spec": [1]},
    {"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"port": "12", "backend": {"a": 1}}},
    {"metadata": {"name": 7, "namespace": "shop"}, "spec": {"port": 12009}},
    {"metadata": None, "spec": {"port": 12009}},
    {"metadata": {"name": "odd", "namespace": "shop", "uid": [], "generation": "x", "creationTimestamp": 5}, "spec": {}},
], ids=["name", "namespace", "null-spec", "list-spec", "types", "number-name", "null-meta", "meta-types"])  # fmt: skip
def test_objects_that_a_real_server_would_not_send(watched, obj):
    """Each costs itself only, and never becomes a path."""
    since = watched.fake.mark()
    watched.watch.event("ADDED", {"apiVersion": "tidegate.dev/v1alpha1", "kind": "WebSocketServer", **obj})
    watched.put("second", 12002)
    assert watched.rendered() == {"first": 12001, "second": 12002}
    watched.fake.wait("patch", SERVERS, since=since)
    assert all(".." not in r.path for r in watched.fake.requests)


def test_an_object_that_is_being_deleted_serves_until_it_is_gone(watched):
    obj = dict(watched.fake.objects[SERVERS]["shop", "first"])
    obj["metadata"] = {**obj["metadata"], "deletionTimestamp": "2026-11-24T10:00:00Z", "finalizers": ["a.example/b"]}
    watched.fake.put(SERVERS, obj)
    watched.put("second", 12002)
    assert watched.rendered() == {"first": 12001, "second": 12002}
    watched.fake.drop(SERVERS, "shop", "first")
    watched.wait_rendered({"second": 12002})


def test_versions_that_no_integer_holds(rig):
    rig.fake.versions = iter(range(2**70, 2**71))
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.start()
    rig.put("second", 12002)
    since, last = rig.fake.mark(), version_of(rig)
    rig.fake.watching(SERVERS).end()
    (again,) = rig.fake.wait(WATCH, SERVERS, since=since)
    assert int(last) > 2**64 and int(again.query["resourceVersion"]) >= int(last)


# Watches that end


def test_a_bookmark_is_where_the_next_watch_begins(watched):
    since = watched.fake.mark()
    watched.watch.bookmark("5000")
    watched.watch.end()
    (again,) = watched.fake.wait(WATCH, SERVERS, since=since)
    assert again.query["resourceVersion"] == "5000" and watched.steps(since) == [(WATCH, 200)]


def test_every_event_moves_the_version(watched):
    since = watched.fake.mark()
    watched.put("second", 12002)
    watched.fake.drop(SERVERS, "shop", "second")
    watched.wait_rendered({"first": 12001})
    last = watched.fake.history[SERVERS][-1][0]
    watched.watch.end()
    (again,) = watched.fake.wait(WATCH, SERVERS, since=since)
    assert again.query["resourceVersion"] == last and watched.steps(since) == [(WATCH, 200)]


def gone(where):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": where, "message": "too old"}


@pytest.mark.parametrize("reason", ["Expired", "Gone"])
def test_gone_in_the_stream_lists_anew(watched, reason):
    since, last = watched.fake.mark(), version_of(watched)
    watched.fake.drop(SERVERS, "shop", "first", tell=False)
    later(watched, "second", 12002)
    watched.watch.event("ERROR", gone(reason))
    watched.wait_rendered({"second": 12002})
    watch = watched.fake.watching(SERVERS, since)
    assert watched.steps(since) == [(LIST, 200), (WATCH, 200)]
    assert watched.fake.seen(LIST, SERVERS, since)[0].query == {"resourceVersion": last}
    assert int(watch.request.query["resourceVersion"]) > int(last)


def test_gone_at_the_door_lists_anew(watched):
    since = watched.fake.mark()
    later(watched, "second", 12002)
    watched.fake.script(WATCH, SERVERS, status(410, "Expired"))
    watched.watch.end()
    watched.wait_rendered({"first": 12001, "second": 12002})
    watched.fake.watching(SERVERS, since)
    assert watched.steps(since) == [(WATCH, 410), (LIST, 200), (WATCH, 200)]


TOO_LARGE = {"details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}}


@pytest.mark.parametrize("refusal", [status(410, "Expired"), status(504, "Timeout", **TOO_LARGE)], ids=["gone", "too-new"])
def test_a_version_that_cannot_be_listed_is_given_up(watched, refusal):
    since = watched.fake.mark()
    later(watched, "second", 12002)
    watched.fake.script(LIST, SERVERS, refusal)
    watched.watch.event("ERROR", gone("Expired"))
    watched.wait_rendered({"first": 12001, "second": 12002})
    one, two = watched.fake.seen(LIST, SERVERS, since)
    assert "resourceVersion" in one.query and "resourceVersion" not in two.query
    assert two.at - one.at < FIRST_BACKOFF, "at once"


def test_gone_on_page_2_lists_once_without_pages(rig):
    rig.fake.page = 2
    for i in range(5):
        rig.fake.put(SERVERS, websocket_server(f"s{i}", 12000 + i))
    rig.fake.script(LIST, SERVERS, status(410, "Expired"), when=lambda r: "continue" in r.query)
    rig.start()
    rig.wait_rendered({f"s{i}": 12000 + i for i in range(5)})
    assert [r.query for r in rig.fake.seen(LIST, SERVERS)] == [{"limit": "500"}, {"limit": "500", "continue": "token-2"}, {}]


def test_half_a_list_deletes_nothing(watched):
    """The second page fails: what was not on the first one stays."""
    rig = watched
    rig.put("second", 12002)
    rig.put("third", 12003)
    rig.fake.page = 1
    rig.fake.drop(SERVERS, "shop", "third", tell=False)
    # The list at a version comes whole; this server has forgotten it, so pages it is.
    rig.fake.script(LIST, SERVERS, status(410, "Expired"), when=lambda r: "resourceVersion" in r.query)
    rig.fake.script(LIST, SERVERS, status(500, "InternalError"), when=lambda r: "continue" in r.query)
    since = rig.fake.mark()
    rig.watch.event("ERROR", gone("Expired"))
    failed = rig.fake.wait(LIST, SERVERS, 3, since=since)[2]
    assert failed.query == {"limit": "500", "continue": "token-1"}
    assert rig.rendered() == {"first": 12001, "second": 12002, "third": 12003}
    rig.wait_rendered({"first": 12001, "second": 12002})


@pytest.mark.parametrize("refusal", [status(429, "TooManyRequests", retry_after=7), status(503, "ServiceUnavailable", retry_after=7)],
                         ids=["429", "503"])  # fmt: skip
def test_a_busy_server_is_given_the_time_it_asks_for(watched, refusal):
    rig = watched
    with rig.fast():
        since, last = rig.fake.mark(), version_of(rig)
        rig.fake.script(WATCH, SERVERS, refusal)
        rig.watch.end()
        one, two = rig.fake.wait(WATCH, SERVERS, 2, since=since)
        assert rig.after(one, two) >= 7, "sooner than the server asked for"
        assert one.query["resourceVersion"] == two.query["resourceVersion"] == last
        assert LIST not in [verb for verb, _ in rig.steps(since)]


def test_503_without_a_time_is_no_reason_to_list(watched):
    since = watched.fake.mark()
    watched.fake.script(WATCH, SERVERS, faults.answer(503, b"upstream is not there", kind="text/plain"))
    watched.watch.end()
    one, two = watched.fake.wait(WATCH, SERVERS, 2, since=since)
    assert two.at - one.at >= FIRST_BACKOFF and LIST not in [verb for verb, _ in watched.steps(since)]


def test_busy_in_the_stream_keeps_the_version(watched):
    since, last = watched.fake.mark(), version_of(watched)
    watched.watch.event("ERROR", {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "no"})
    (again,) = watched.fake.wait(WATCH, SERVERS, since=since)
    assert again.query["resourceVersion"] == last and LIST not in [verb for verb, _ in watched.steps(since)]


def test_any_other_error_in_the_stream_lists_after_a_while(watched):
    since = watched.fake.mark()
    watched.watch.event("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "no"})
    watched.fake.watching(SERVERS, since)
    assert watched.steps(since) == [(LIST, 200), (WATCH, 200)]


@pytest.mark.parametrize("end", ["reset", "fin"])
def test_a_watch_that_is_cut_within_an_event(watched, end):
    """It goes on from the last whole event, and nothing is listed."""
    since, last = watched.fake.mark(), version_of(watched)
    line = event("ADDED", later(watched, "second", 12002))
    watched.watch.send(line[: len(line) // 2])
    getattr(watched.watch, end)()
    watched.wait_rendered({"first": 12001, "second": 12002})
    assert watched.steps(since) == [(WATCH, 200)]
    assert watched.fake.seen(WATCH, SERVERS, since)[0].query["resourceVersion"] == last


def test_a_watch_that_ends_cleanly_within_an_event(watched):
    since, last = watched.fake.mark(), version_of(watched)
    line = event("ADDED", later(watched, "second", 12002))
    watched.watch.send(line[: len(line) // 2])
    watched.watch.end()
    watched.wait_rendered({"first": 12001, "second": 12002})
    assert watched.fake.seen(WATCH, SERVERS, since)[0].query["resourceVersion"] == last
    assert LIST not in [verb for verb, _ in watched.steps(since)]


def test_silence_is_noticed(watched):
    """No byte for four minutes: the watch is given up and opened anew where it stood, without a list."""
    rig = watched
    later(rig, "second", 12002)
    with rig.fast(40):
        since, one = rig.fake.mark(), rig.watch.request
        rig.wait_rendered({"first": 12001, "second": 12002}, timeout=20)
        two = rig.fake.seen(WATCH, SERVERS, since)[0]
        assert (two.at - one.at) * 40 <= 300, "later than five minutes"
        assert two.connection != one.connection and LIST not in [verb for verb, _ in rig.steps(since)]


def test_bookmarks_keep_a_silent_watch_alive(watched):
    """A byte now and then is life; only the time that was agreed upon ends such a watch, half a minute after it."""
    rig = watched
    since, one = rig.fake.mark(), rig.watch.request
    seconds = int(one.query["timeoutSeconds"])

    def next_watch():
        with contextlib.suppress(faults.Gone):
            rig.watch.bookmark("5000")
        return rig.fake.seen(WATCH, SERVERS, since)

    with rig.fast(40):
        begin = time.monotonic()
        two = wait_until("the next watch", next_watch, 30, step=0.5)[0]
        lasted = (two.at - begin) * 40 + begin - one.at
        assert seconds + 29 <= lasted <= seconds + 120 and two.query["resourceVersion"] == "5000"
    assert len(rig.fake.seen(WATCH, "secrets", since)) >= 1, "of which nothing came"
    assert rig.steps(since) == [(WATCH, 200)]


def test_watches_that_end_at_once_are_asked_for_ever_more_slowly(watched):
    rig = watched
    with rig.fast():
        since = rig.fake.mark()
        rig.fake.script(WATCH, SERVERS, *[faults.short_watch] * 5)
        rig.watch.end()
        watches = rig.fake.wait(WATCH, SERVERS, 6, since=since, timeout=30)
        waits = [rig.after(a, b) for a, b in zip(watches, watches[1:])]
        for i, wait in enumerate(waits):
            assert wait >= FIRST_BACKOFF * 2**i, f"the waits were {waits}"


def test_a_server_that_is_away_is_asked_ever_more_slowly(watched):
    rig = watched
    since = rig.fake.mark()
    with rig.fast():
        over = rig.fake.for_ever(WATCH, SERVERS, faults.reset)
        rig.watch.reset()
        # A kept connection that turns out dead is no failure yet: the request goes out once more at once, on a fresh one.
        watches = rig.fake.wait(WATCH, SERVERS, 5, since=since, timeout=30, fresh=True)
        over()
        waits = [rig.after(a, b) for a, b in zip(watches, watches[1:])]
        for i, wait in enumerate(waits):
            assert wait >= FIRST_BACKOFF * 2**i, f"the waits were {waits}"
        later(rig, "second", 12002)
        rig.wait_rendered({"first": 12001, "second": 12002}, timeout=20)
    assert LIST not in [verb for verb, _ in rig.steps(since)], "a list for each of them is what ends a server that comes back"


# Lists that fail


def test_a_list_that_is_cut_is_asked_for_once_more(rig):
    rig.fake.page = 2
    for i in range(3):
        rig.fake.put(SERVERS, websocket_server(f"s{i}", 12000 + i))
    over = rig.fake.for_ever(LIST, SERVERS, faults.reset, when=lambda r: "continue" in r.query)
    rig.start(wait=False)
    # A kept connection that turns out dead is no failure yet: the request goes out once more at once.
    (fresh,) = rig.fake.wait(LIST, SERVERS, fresh=True, query={"limit": "500", "continue": "token-2"})
    over()
    rig.wait_rendered({f"s{i}": 12000 + i for i in range(3)})
    again = rig.fake.seen(LIST, SERVERS)[-1]
    assert again.query == fresh.query and again.at - fresh.at >= 1
    assert [r.query for r in rig.fake.seen(LIST, SERVERS)].count({"limit": "500"}) == 1, "the first page was not lost"


def test_nothing_is_published_before_everything_is_listed(rig):
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    over = rig.fake.for_ever(LIST, "secrets", status(500, "InternalError"))
    rig.start(wait=False)
    rig.fake.watching(SERVERS)
    rig.fake.wait(LIST, "secrets", 2)
    assert rig.rendered() is None
    over()
    rig.wait_rendered({"first": 12001})


def test_a_kind_that_is_not_there_yet(rig):
    """404 is no end: it is asked again at the longest backoff, and served once it is there."""
    over = rig.fake.for_ever(LIST, SERVERS, faults.answer(404, b"404 page not found\n", kind="text/plain"))
    with rig.fast():
        rig.start(wait=False)
        one, two = rig.fake.wait(LIST, SERVERS, 2, timeout=20)[:2]
        assert 30 <= rig.after(one, two) <= 65
        assert rig.rendered() is None
        over()
        rig.fake.put(SERVERS, websocket_server("first", 12001))
        rig.wait_rendered({"first": 12001}, timeout=20)


def test_a_right_that_is_not_there_yet(rig):
    over = rig.fake.for_ever(LIST, SERVERS, status(403, "Forbidden", "may not list"))
    with rig.fast():
        rig.start(wait=False)
        one, two = rig.fake.wait(LIST, SERVERS, 2, timeout=20)[:2]
        assert rig.after(one, two) >= 30
        over()
        rig.fake.put(SERVERS, websocket_server("first", 12001))
        rig.wait_rendered({"first": 12001}, timeout=20)


def test_readyz_says_what_is_wrong_right_now(rig):
    over = rig.fake.for_ever(LIST, SERVERS, status(500, "InternalError", "at first"))
    controller = rig.start("--admin", f"127.0.0.1:{(port := free_port())}", wait=False)
    controller.admin_port = port
    rig.fake.watching("endpointslices")
    over()
    rig.fake.for_ever(LIST, SERVERS, status(500, "InternalError", "and then"))
    with rig.fast():
        wait_until("the reason", lambda: (a := controller.get("/readyz"))[0] == 503 and "and then" in str(a[2]), 10)


# Credentials


def test_a_token_that_was_rotated_is_read_at_the_first_401(watched):
    rig = watched
    rig.fake.tokens = {"token-2"}
    (rig.fake.folder / "token").write_text("token-2\n")
    since = rig.fake.mark()
    rig.watch.end()
    old, new = rig.fake.wait(WATCH, SERVERS, 2, since=since)[:2]
    assert (old.token, old.code, new.token) == ("token-1", 401, "token-2") and new.at - old.at < FIRST_BACKOFF
    rig.put("second", 12002)


def test_a_401_that_stays_is_borne(watched):
    """No end and no storm; the token that comes at last is taken."""
    rig = watched
    with rig.fast():
        rig.fake.tokens = {"token-2"}
        since = rig.fake.mark()
        rig.watch.end()
        watches = rig.fake.wait(WATCH, SERVERS, 4, since=since, timeout=20)
        assert {r.code for r in watches[:3]} == {401} and rig.after(watches[0], watches[3]) >= FIRST_BACKOFF * 3
        (rig.fake.folder / "token").write_text("token-2")
        later(rig, "second", 12002)
        rig.wait_rendered({"first": 12001, "second": 12002}, timeout=20)
    assert LIST not in [verb for verb, _ in rig.steps(since)]


def test_a_ca_that_was_swapped(watched, certs):
    """The server shows a certificate of another CA: not a word to it before its file says so, then without a restart."""
    rig = watched
    rig.fake.use(certs.other_server)
    since = rig.fake.mark()
    rig.fake.drop_all()
    rig.controller.wait_log("kube", timeout=10)
    wait_until("it has been seen", lambda: any("certificate" in e.get("msg", "") for e in rig.controller.logged("kube")))
    assert rig.fake.seen(since=since) == []
    (rig.fake.folder / "ca.crt").write_bytes(certs.other_ca.cert)
    later(rig, "second", 12002)
    with rig.fast():
        rig.wait_rendered({"first": 12001, "second": 12002}, timeout=20)


def test_no_token_is_logged(rig):
    rig.start("--log-level", "debug")
    rig.fake.tokens = {"token-2"}
    rig.fake.watching(SERVERS).end()
    wait_until("a 401", lambda: rig.fake.seen(code=401))
    wait_until("it was said", lambda: any("nauthorized" in e.get("msg", "") for e in rig.controller.logged("kube")))
    assert not [e for e in rig.controller.logs if "token-1" in json.dumps(e)]


# The way there


class Tunnel(threading.Thread):
    """An HTTP proxy that takes CONNECT and nothing else: .asked, the targets in order."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.asked = []

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client):
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            assert method == "CONNECT"
            self.asked.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Established\r\n\r\n")
                ends = {client: server, server: client}
                while True:
                    for one in select.select(list(ends), [], [], 10)[0]:
                        data = one.recv(65536)
                        if not data:
                            return
                        ends[one].sendall(data)


@pytest.fixture
def tunnel():
    one = Tunnel()
    one.start()
    yield one
    one.listener.close()


def test_a_proxy_of_the_environment(rig, tunnel):
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.start(env={"HTTPS_PROXY": tunnel.url, "NO_PROXY": "10.0.0.0/8,example.org"})
    rig.wait_rendered({"first": 12001})
    assert set(tunnel.asked) == {f"127.0.0.1:{rig.fake.port}"}


def test_networks_that_need_no_proxy(rig, tunnel):
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.start(env={"HTTPS_PROXY": tunnel.url, "NO_PROXY": "127.0.0.0/8"})
    rig.wait_rendered({"first": 12001})
    assert not tunnel.asked


def test_a_proxy_of_the_kubeconfig(rig, tunnel):
    text = json.loads(rig.kubeconfig.read_text())
    text["clusters"][0]["cluster"]["proxy-url"] = tunnel.url
    rig.kubeconfig.write_text(json.dumps(text))
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.start()
    rig.wait_rendered({"first": 12001})
    assert set(tunnel.asked) == {f"127.0.0.1:{rig.fake.port}"}


# Writes


def patches(rig, since=0):
    return [r for r in rig.fake.seen("patch", SERVERS, since) if r.sub == "status"]


@pytest.mark.parametrize("refusal", [status(409, "Conflict"), status(500, "InternalError"), faults.reset], ids=["409", "500", "reset"])
def test_a_status_that_was_not_taken_is_written_again(rig, refusal):
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.fake.script("patch", SERVERS, refusal, refusal)
    rig.start()
    wait_until("a third try", lambda: len(patches(rig)) >= 3)
    wait_until("it stands there", lambda: "status" in rig.fake.objects[SERVERS]["shop", "first"])


@pytest.mark.parametrize("code, reason", [(422, "Invalid"), (400, "BadRequest"), (404, "NotFound")])
def test_a_status_that_is_refused_for_good_is_left(rig, code, reason):
    rig.fake.put(SERVERS, websocket_server("first", 12001))
    rig.fake.script("patch", SERVERS, status(code, reason))
    rig.start()
    wait_until("one try", lambda: patches(rig))
    with rig.fast():
        rig.some_seconds()
    said = [re.sub(r'"lastTransitionTime": "[^"]*"', "", json.dumps(r.json)) for r in patches(rig)]
    assert len(said) == len(set(said)), "the same was sent twice"


def test_a_status_that_stands_there_is_not_written_again(watched):
    since = watched.fake.mark()
    watched.watch.event("MODIFIED", watched.fake.objects[SERVERS]["shop", "first"])
    watched.fake.put(SERVERS, websocket_server("second", 12002))
    wait_until("the status of the other", lambda: any(r.name == "second" for r in patches(watched, since)))
    assert [r.name for r in patches(watched, since)] == ["second"]


# Time, and two of them


def test_a_wall_clock_that_jumps_changes_nothing(watched):
    since = watched.fake.mark()
    for jump in (86400, -86400, 0):
        watched.clock.speed(1, jump)
        watched.put(f"at{abs(jump)}{'-' if jump < 0 else ''}x", 12100 + jump // 86400)
    assert watched.steps(since) == []


def test_a_leader_that_stands_still_writes_no_more(rig, certs):
    rig.fake.tokens = {"token-1", "token-2"}
    text = json.loads(rig.kubeconfig.read_text())
    text["users"][0]["user"] = {"token": "token-2"}
    other = rig.kubeconfig.with_name("other")
    other.write_text(json.dumps(text))
    one = rig.start("--leader-elect", run=rig.folder / "one")

    def holder():
        lease = next(iter(rig.fake.objects["leases"].values()), {"spec": {}})
        return (lease["spec"].get("holderIdentity") or "").partition("_")[0]

    wait_until("a leader", lambda: holder() == "one")
    two = rig.start("--leader-elect", kubeconfig=other, run=rig.folder / "two")
    with rig.fast(10):
        one.process.send_signal(signal.SIGSTOP)
        try:
            wait_until("the other leads", lambda: holder() == "two", 20)
        finally:
            one.process.send_signal(signal.SIGCONT)
        since = rig.fake.mark()
        rig.fake.put(SERVERS, websocket_server("first", 12001))
        for run in ("one", "two"):
            wait_until("both render", lambda run=run: rig.rendered(rig.folder / run) == {"first": 12001})
        wait_until("the status", lambda: patches(rig, since))
    assert {r.token for r in patches(rig, since)} == {"token-2"} and holder() == "two"
    two.stop()
    rig.controllers.remove(two)
    wait_until("it was given up", lambda: holder() in ("", "one"))
