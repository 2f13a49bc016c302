"""The live page of the admin port in Chromium."""

import re
import signal
import threading

import pytest

from support.admin import AdminDemo
from support.browser import Browser
from support.crowd import Crowd, CrowdBackend
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import wait_until


@pytest.fixture
def browser(tmp_path):
    page = Browser(tmp_path)
    yield page
    page.close()


@pytest.fixture
def admin():
    with AdminDemo() as demo:
        yield demo


def look(browser, admin, **kw):
    """The page, with its first figures in it."""
    browser.open(f"http://127.0.0.1:{admin.port}/", **kw)
    wait_until("figures", lambda: browser.eval("document.querySelectorAll('#rows tr').length") > 0, 20)


def cells(browser, name):
    """label -> text of a server's row"""
    return browser.eval(
        f"Object.fromEntries([...document.querySelector('tr[data-name=\"{name}\"]').cells].map((c) => [c.dataset.label, c.innerText]))"
    )


def test_figures_move(browser, admin):
    """What is served is seen to move: connections, rates, answers, closes by who began them, and lines of history."""
    look(browser, admin)
    assert browser.text("#state") == "ready"
    assert browser.text("#revision") == "9f86d081884c"
    assert len(browser.texts("#rows tr")) == 12
    assert [t.split()[:2] for t in browser.texts(".worker")] == [["worker", "0"], ["worker", "1"]]
    first = cells(browser, "staging/chat-0")
    row = wait_until("rates", lambda: (lambda c: c if c != first and "/s" in c["Answers"] and "↑ 0\n" not in c["Messages/s"] else None)(cells(browser, "staging/chat-0")), 10)
    assert re.match(r"\d+", row["Connections"]) and re.match(r"↑ [\d.]+ k\n↓ [\d.]+ k", row["Messages/s"])
    assert re.match(r"↑ [\d.]+ [kM]B\n↓ [\d.]+ [kM]B", row["Bytes/s"])
    assert re.search(r"101 \d+/s", row["Answers"])
    assert re.search(r"1001 gateway \d+", row["Closes"]) and re.search(r"1000 client \d+", row["Closes"])
    assert re.match(r"[<\d].* (ms|s)\n", row["p50 / p99"])
    assert re.fullmatch(r"\d+ [dh]", row["Certificate"])
    seen = set()
    wait_until("other totals", lambda: seen.add(browser.text(".tile .big")) or len(seen) > 2, 15)
    assert browser.eval("document.querySelector('.tile .spark .line').getAttribute('d').split('L').length") > 2
    uptime = browser.text("#uptime")
    wait_until("time goes on", lambda: browser.text("#uptime") != uptime, 5)
    assert browser.complaints == []


def test_states_and_problems_are_said(browser, admin):
    """Each state with its message, as text and never as markup, and what was wrong with the last file."""
    look(browser, admin)
    assert "failed" in cells(browser, "prod/notify-5")["Server"] and "taken by another process" in cells(browser, "prod/notify-5")["Server"]
    assert "draining" in cells(browser, "staging/board-6")["Server"]
    stale = cells(browser, "staging/telemetry-3")["Server"]
    assert "stale" in stale and "<b>its last good version serves</b>" in stale
    assert browser.eval("document.querySelectorAll('.message b').length") == 0
    assert browser.text("#problems-title") == "The last file read was applied in part:"
    assert [p[:5] for p in browser.texts("#problems-list li")] == ["41:3:", "58:7:"]
    admin.process.send_signal(signal.SIGUSR1)
    wait_until("draining", lambda: browser.text("#state") == "draining", 5)


def test_filter_and_sort(browser, admin):
    look(browser, admin)
    browser.eval("const f = document.getElementById('filter'); f.value = 'CHAT'; f.dispatchEvent(new Event('input'))")
    assert browser.eval("[...document.querySelectorAll('#rows tr')].map((r) => r.dataset.name)") == ["prod/chat-8", "staging/chat-0"]
    assert browser.text("#shown") == "2 of 12 servers"
    browser.eval("f.value = ''; f.dispatchEvent(new Event('input'))")
    browser.eval("document.querySelector('[data-state=failed]').click()")
    assert browser.eval("[...document.querySelectorAll('#rows tr')].map((r) => r.dataset.name)") == ["prod/notify-5"]
    browser.eval("document.querySelector('[data-state=null]').click()")
    browser.eval("[...document.querySelectorAll('th button')].find((b) => b.textContent === 'Connections').click()")
    counts = browser.eval("[...document.querySelectorAll('td[data-label=Connections]')].map((c) => parseInt(c.innerText.replace(',', '')))")
    assert counts == sorted(counts, reverse=True) and len(counts) == 12
    assert browser.eval("document.querySelector('th[aria-sort=descending]').innerText").startswith("Connections")
    browser.eval("f.value = 'nobody'; f.dispatchEvent(new Event('input'))")
    assert browser.text("#empty") == "No server matches."


def test_a_lost_proxy_is_said_and_found_again(browser):
    with AdminDemo() as first:
        look(browser, first)
        assert browser.eval("document.getElementById('lost').hidden")
    lost = wait_until("lost", lambda: browser.text("#lost"), 10)
    assert lost.startswith("Connection to the proxy lost, retrying")
    assert browser.text("#state") == "lost"
    with AdminDemo(servers=3, port=first.port):
        wait_until("found", lambda: browser.text("#state") == "ready" and len(browser.texts("#rows tr")) == 3, 20)
        assert browser.eval("document.getElementById('lost').hidden")


def test_a_frozen_proxy_is_said(browser, admin):
    """No news is no good news, though the connection stands."""
    look(browser, admin)
    admin.process.send_signal(signal.SIGSTOP)
    try:
        wait_until("lost", lambda: browser.text("#state") == "lost", 15)
    finally:
        admin.process.send_signal(signal.SIGCONT)
    wait_until("found", lambda: browser.text("#state") == "ready", 10)


def test_thousands_of_servers(browser):
    with AdminDemo(servers=4096, workers=4) as demo:
        look(browser, demo)
        assert browser.text("#shown") == "4096 of 4096 servers, the first 100"
        assert browser.text("#more") == "Show 100 more"
        browser.eval("document.getElementById('more').click()")
        assert len(browser.texts("#rows tr")) == 200
        assert "all 4096" in browser.texts("#states button")


def test_the_proxy_under_load(browser, start_proxy):
    """Real echoes through two workers: the page counts the connections and sees the messages while they go."""
    port = free_port()
    with CrowdBackend() as backend:
        proxy = start_proxy(ws_spec(port, backend.port, name="ns/crowd"), args=["--workers", "2"], admin=True)
        crowd = Crowd(port, 200)
        stop = threading.Event()
        thread = threading.Thread(target=lambda: [crowd.round() for _ in iter(stop.is_set, True)], daemon=True)
        thread.start()
        try:
            browser.open(f"http://127.0.0.1:{proxy.admin_port}/")

            def is_seen():
                if not browser.texts("#rows tr"):
                    return None
                row = cells(browser, "ns/crowd")
                up, down = re.findall(r"[↑↓] ([\d.]+ ?[kM]?)", row["Messages/s"])
                return row["Connections"].startswith("200") and up != "0" and down != "0" and "B\n" in row["Bytes/s"]

            wait_until("200 connections that speak", is_seen, 20)
            assert all(re.search(r"[1-9]\d* connections", t) for t in browser.texts(".worker"))
            assert browser.complaints == []
        finally:
            stop.set()
            thread.join(20)
        crowd.close()
        wait_until("all closed", lambda: re.search(r"no code client 200", cells(browser, "ns/crowd")["Closes"].replace("\n", " ")), 10)


@pytest.mark.parametrize("width, dark", [(390, False), (820, True), (1280, True)])
def test_it_fits_phones_and_follows_the_scheme(browser, admin, width, dark):
    look(browser, admin, width=width, dark=dark)
    assert browser.eval("document.documentElement.scrollWidth") <= width
    light = browser.eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every((c) => c > 128)")
    assert light != dark
    assert browser.eval("getComputedStyle(document.querySelector('thead')).display") == ("none" if width <= 900 else "table-header-group")
