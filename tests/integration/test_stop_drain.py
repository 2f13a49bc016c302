"""A stop says goodbye: Close 1001 to everybody at a frame's end, spread over the time there is, and an end in time."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter

import pytest

from support.backend import RawBackend, echo
from support.frames import BINARY, CLOSE, TEXT, frame
from support.gate import Gate
from support.hold import Hold
from support.http1 import upgrade_request
from support.proxy import BINARY as PROXY_BINARY
from support.proxy import free_port
from support.site import Site, enter, is_open, talk
from support.spec import ws_spec
from support.wait import wait_until

MASK = b"mask"


def term(proxy, number=signal.SIGTERM):
    """When it was sent, on time.monotonic()."""
    now = time.monotonic()
    proxy.process.send_signal(number)
    return now


def ended(proxy, start, within):
    """The proxy has ended by itself, with 0, `within` seconds after the signal. How long it took."""
    proxy.process.wait(max(0.1, start + within + 5 - time.monotonic()))
    took = time.monotonic() - start
    proxy.stop()
    assert took < within, f"it took {took:.2f} s, {within} were due"
    return took


def window_ms(drain_s):
    """Over how long the Closes are spread: the rest is for the answers."""
    return 1000 * (drain_s - min(5, drain_s / 5))


def judge_spread(last, start, drain_s, count):
    """No 100 ms holds more than three times its share, and all came within the window. last: Hold.finish(). Returns the
    most Closes that 100 ms held, and the share."""
    times = [t - start * 1000 for t in last["close_ms"]]
    assert len(times) == count
    assert max(times) < window_ms(drain_s) + 300, max(times)
    share = count * 100 / window_ms(drain_s)
    fullest = 0.0
    for place, closes in Counter(int(t // 100) for t in times).items():
        # Whoever measures was kept from its CPU: what came meanwhile is counted where the stall ended.
        stalled_ms = sum(ms for at, ms in last["stalls"] if (at - start * 1000) // 100 == place)
        fullest = max(fullest, closes - share * stalled_ms / 100)
    assert fullest <= 3 * share, f"{fullest} Closes in 100 ms, {share:.1f} are the share; stalls: {last['stalls'][:9]}"
    assert max(times) - min(times) > window_ms(drain_s) * 0.8, "they were not spread over the window"
    return fullest, share


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_says_goodbye(start_proxy, number):
    """S57: the client gets Close 1001 with a reason; its answer goes on to the backend, and what it still says too."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            start = term(gate.proxy, number)
            close = client.expect_close(1001)
            assert close.reason
            client.send_frame(TEXT, "last words")
            client.send_close(1001, close.reason)
            conn.expect_frame(TEXT, b"last words")
            conn.expect_close(1001)
            conn.send_close(1001)
            conn.half_close()
            client.expect_gone()
            line = gate.proxy.wait_log(event="close")
            assert (line["code"], line["initiator"]) == (1001, "gateway") and line["reason"] == close.reason
            ended(gate.proxy, start, 2)


def test_backend_is_told_when_the_client_does_not_answer(start_proxy):
    """Ours goes to the backend, too, when no Close comes from the client: within 5 s, or when the drain ends."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            start = term(gate.proxy)
            client.expect_close(1001)
            conn.expect_close(1001, timeout=3)
            ended(gate.proxy, start, 2.2)


def test_stop_without_clients_is_at_once(start_proxy):
    """There is nothing to wait for."""
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(free_port(), backend.port), args=["--max-drain", "30s"])
        assert ended(proxy, term(proxy), 1) < 1


def test_stop_closes_the_ports_and_is_not_ready(start_proxy, run_dir):
    """S57: nobody is let in any more, /readyz says so, and what is open serves until its turn comes."""
    with Site(start_proxy, run_dir, args=["--max-drain", "4s"], count=20, admin=True) as site:
        assert site.proxy.get("/readyz")[0] == 200
        start = term(site.proxy)
        wait_until("the port to be closed", lambda: not is_open(site.port), 1)
        assert site.proxy.get("/readyz")[0] == 503 and site.proxy.get("/healthz")[0] == 200
        assert time.monotonic() - start < 1
        last = site.crowd.wait("all Closes", lambda r: r["closes"] == {"1001": 20})
        assert last["errors"] == 0 and last["cut"] == 0 and last["reason"] and last["other_reasons"] == 0
        ended(site.proxy, start, 5)
        site.crowd.finish()


def test_handshakes_under_way_get_503(start_proxy):
    """A client whose backend has not answered yet, and one whose head is not complete."""
    with Gate(start_proxy) as gate:
        with gate.client() as waiting, gate.client() as halfway:
            waiting.send(upgrade_request())
            conn = gate.backend.accept()
            conn.read_request()
            halfway.send(upgrade_request()[:40])
            gate.proxy.wait_log(event="ready")
            start = term(gate.proxy)
            answer = waiting.read_head()
            assert answer.status == 503 and answer.get("Retry-After")
            assert halfway.read_until_gone().startswith(b"HTTP/1.1 503")
            ended(gate.proxy, start, 2)


def test_closes_are_spread_over_the_window(start_proxy, run_dir):
    """S57: 400 sockets, a drain of 4 s: no rush, no idle time."""
    with Site(start_proxy, run_dir, args=["--max-drain", "4s"], count=400, period_ms=500) as site:
        start = term(site.proxy)
        last = site.crowd.wait("all Closes", lambda r: r["closes"] == {"1001": 400})
        assert (last["errors"], last["cut"], last["other_reasons"]) == (0, 0, 0), last
        ended(site.proxy, start, 5)
        judge_spread(site.crowd.finish(), start, 4, 400)


def test_drain_is_each_servers_own(start_proxy, run_dir):
    """timeouts.drain of the server, capped by --max-drain: the quick one is through before the slow one."""
    with Site(start_proxy, run_dir, args=["--max-drain", "3s"], count=40, still={"timeouts": {"drain": "1h"}}) as site:
        port = free_port()
        site.apply(ws_spec(port, site.echo.port, name="quick", timeouts={"drain": "500ms"}))
        with Hold(port, 40, period_ms=100) as quick:
            start = term(site.proxy)
            quick.wait("all Closes", lambda r: r["closes"] == {"1001": 40})
            site.crowd.wait("all Closes", lambda r: r["closes"] == {"1001": 40})
            ended(site.proxy, start, 4)
            times = {c: [t - start * 1000 for t in c.finish()["close_ms"]] for c in (quick, site.crowd)}
        assert max(times[quick]) < 700 and 1500 < max(times[site.crowd]) < 2800


def test_second_signal_means_now(start_proxy, run_dir):
    """S57: the operator who asks again does not wait; the exit code is 0 all the same."""
    with Site(start_proxy, run_dir, args=["--max-drain", "30s"], count=20) as site:
        start = term(site.proxy)
        wait_until("the port to be closed", lambda: not is_open(site.port))
        site.proxy.process.send_signal(signal.SIGTERM)
        ended(site.proxy, start, 2)
        site.crowd.finish()


def test_asking_again_and_again_puts_nothing_off(start_proxy, run_dir):
    """S57: TERM each 100 ms, and a worker that stands still: the end comes as soon as after the second one."""
    with Site(start_proxy, run_dir, args=["--max-drain", "30s"], count=1) as site:
        os.kill(site.proxy.worker, signal.SIGSTOP)
        start = term(site.proxy)
        while site.proxy.process.poll() is None and time.monotonic() - start < 4:
            term(site.proxy)
            with contextlib.suppress(subprocess.TimeoutExpired):
                site.proxy.process.wait(0.1)
        ended(site.proxy, start, 2)
        site.crowd.finish()


def test_close_waits_for_the_end_of_a_frame(start_proxy):
    """S25: a backend's frame that is on its way reaches the client whole, and the Close stands behind it."""
    whole = frame(BINARY, bytes(range(200)))
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            conn.send(whole[:50])
            assert client.read_exactly(50) == whole[:50]
            start = term(gate.proxy)
            client.expect_nothing(0.3)
            conn.send(whole[50:])
            assert client.read_exactly(len(whole) - 50) == whole[50:]
            client.expect_close(1001)
            client.send_close(1001)
            conn.expect_close(1001)
            conn.send_close(1001)
            ended(gate.proxy, start, 2)


def test_close_may_stand_between_fragments(start_proxy):
    """S25: a message that has no end yet is no reason to wait."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            conn.send_frame(TEXT, "first of many", fin=False)
            client.expect_frame(TEXT, b"first of many")
            start = term(gate.proxy)
            client.expect_close(1001)
            client.send_close(1001)
            ended(gate.proxy, start, 2)


def test_frame_that_never_ends_is_cut_at_the_deadline(start_proxy):
    """S57: no Close can be sent inside a frame: such a client is only cut, and no byte of ours stands in its stream."""
    whole = frame(BINARY, bytes(200))
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            conn.send(whole[:50])
            assert client.read_exactly(50) == whole[:50]
            start = term(gate.proxy)
            client.expect_gone(3)
            assert ended(gate.proxy, start, 2) > 0.9
            line = gate.proxy.logged("close")[0]
            assert line["initiator"] == "gateway" and line["code"] in (1001, 1006)


def test_client_inside_a_frame_of_its_own_gets_its_close(start_proxy):
    """S25: what the client has not sent to the end keeps our Close from its backend, not from itself."""
    whole = frame(BINARY, bytes(200), mask=MASK)
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            client.send(whole[:50])
            assert conn.read_exactly(50) == whole[:50]
            start = term(gate.proxy)
            client.expect_close(1001)
            client.send(whole[50:])
            client.send_close(1001)
            assert conn.read_exactly(len(whole) - 50) == whole[50:]
            conn.expect_close(1001)
            conn.send_close(1001)
            conn.half_close()
            ended(gate.proxy, start, 2)


def test_deaf_and_half_sent_sockets_are_cut_in_time(start_proxy, run_dir):
    """S57: clients that hang inside a frame, as what is echoed to them does, and those that read nothing are cut at the
    deadline; all others hear their Close meanwhile."""
    with Site(start_proxy, run_dir, args=["--max-drain", "3s"], count=100) as site:
        with Hold(site.port, 40, deaf=20, midframe=20) as odd:
            start = term(site.proxy)
            site.crowd.wait("all Closes", lambda r: r["closes"] == {"1001": 100})
            assert ended(site.proxy, start, 4) > 2
            last = odd.finish()
            assert last["cut"] >= 20 and last["errors"] == 0 and last["closes"] == {}
        assert site.crowd.finish()["cut"] == 0


def test_stopping_flood_is_at_an_end_in_time(start_proxy):
    """A backend that never pauses: the Close finds a boundary inside the stream of bytes."""
    one = frame(BINARY, bytes(1000))

    def flood(conn):
        conn.answer_101()
        while True:
            conn.send(one * 50)

    with Gate(start_proxy, script=flood) as gate:
        with gate.client() as client:
            client.handshake()
            start = term(gate.proxy)
            while (f := client.read_frame(5)).opcode == BINARY:
                assert f.payload == bytes(1000)
                if client.at > 1 << 20:
                    del client.received[: client.at]
                    client.at = 0
            assert f.opcode == CLOSE and f.code == 1001
            client.send_close(1001)
            client.read_until_gone(5)
            ended(gate.proxy, start, 2)


def test_deleted_server_drains_as_a_stop_does(start_proxy, run_dir):
    """Its Closes are spread over its own drain, and nobody else notices."""
    with Site(start_proxy, run_dir, args=["--max-drain", "3s"], count=60) as site:
        port = free_port()
        site.apply(ws_spec(port, site.echo.port, name="guest", timeouts={"drain": "1h"}))
        with Hold(port, 300, period_ms=500) as guests:
            start = time.monotonic()
            site.apply()
            last = guests.wait("all Closes", lambda r: r["closes"] == {"1001": 300})
            assert (last["errors"], last["cut"], last["other_reasons"]) == (0, 0, 0), last
            judge_spread(guests.finish(), start, 3, 300)
        site.proxy.wait_status("the server to be gone", lambda s: len(s["servers"]) == 1)


# --stop


def test_stop_flag_ends_the_holder(start_proxy, run_dir):
    """`--stop` signals the proxy of this run dir and comes back when it is gone; with --delay it serves on meanwhile."""
    with Site(start_proxy, run_dir, count=5) as site:
        start = time.monotonic()
        command = [PROXY_BINARY, "--run-dir", str(run_dir), "--stop", "--delay", "700ms"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as stopper:
            wait_until("half of the delay", lambda: time.monotonic() - start > 0.35)
            with enter(site.port)[0] as client:
                talk(client)
                client.expect_close(1001)
                client.send_close(1001)
            assert stopper.wait(10) == 0
        assert site.proxy.process.wait(1) == 0 and not site.proxy.processes()
        assert time.monotonic() - start > 0.7
        site.proxy.stop()
        site.crowd.finish()
