"""The status page in a real browser: its content, accessibility and security policy."""

from collections.abc import Iterator
from typing import Final

import pytest

from cdc.http.application import Application
from cdc.http.server import HttpServer
from cdc.telemetry.metrics import STREAMING, WAITING, Metrics, Trouble
from tests import specimen
from tests.browser import Browser
from tests.browser import browser as browser
from tests.endpoint import LOOPBACK, listening
from tests.load import Load
from tests.pipeline import Pipeline, eventually

pytestmark = pytest.mark.timeout(300)  # the first may have to install the browser

TONES: Final = ("good", "busy", "warn", "bad", "quiet")
LONG: Final = "a-topic-with-a-name-as-long-as-kafka-allows." + "x" * 205

# Every text that is seen, with the ratio of its colour to that of what is behind it.
CONTRAST: Final = """
const parse = text => {
  const n = text.match(/[\\d.]+/g).map(Number);
  const rgb = text.startsWith('color(srgb') ? n.slice(0, 3) : n.slice(0, 3).map(v => v / 255);
  return [...rgb, n.length > 3 ? n[3] : 1];
};
const light = rgb => rgb.slice(0, 3).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = node => {
  for (let at = node; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour[3] > .5) return colour;
  }
  return [1, 1, 1, 1];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || node.closest('script,style,noscript')) continue;
  if (!node.checkVisibility()) continue;
  const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
  found.push([walker.currentNode.textContent.trim(), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]);
}
return found;
"""


@pytest.fixture
def metrics() -> Metrics:
    return specimen.metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[HttpServer]:
    with HttpServer(LOOPBACK, Application(metrics, specimen.IDENTITY)) as server:
        yield server


def url(server: HttpServer) -> str:
    return f"http://{server.addresses[0]}/"


def filled(browser: Browser) -> Browser:
    """Wait until the page shows numbers."""
    eventually(lambda: browser.text("state") != "\N{EN DASH}", "the page is filled")
    return browser


@pytest.mark.parametrize("source", ["slot", "polling"], indirect=True)
def test_the_numbers_of_a_real_publisher_move(browser: Browser, pipeline: Pipeline) -> None:
    endpoint = listening(pipeline)
    endpoint.reaches("idle", 200)
    browser.open(f"http://{endpoint.address}/")
    eventually(lambda: browser.text("state") == "Idle", "idle")
    assert browser.text("delivered") == "0"
    assert browser.text("topics-more") == "No events have been sent yet."
    with Load(pipeline.dsn, writers=1, pause=0.01):
        eventually(lambda: browser.text("state") == "Streaming", "streaming")
        eventually(lambda: float(browser.text("rate").replace(",", "")) > 0, "a rate")
        eventually(lambda: " ms" in browser.text("p50"), "a latency")
        before = int(browser.text("delivered").replace(",", ""))
        eventually(lambda: int(browser.text("delivered").replace(",", "")) > before, "more is delivered")
    assert pipeline.topic in browser.text("topics")
    assert browser.text("slot-name") == pipeline.slot
    assert browser.text("slot-kind") == ("relay" if pipeline.polls else "slot")
    assert browser.shown("chart-lag") != pipeline.polls
    shown = "[...document.querySelectorAll('.chart:not([hidden]) .curve')]"
    curves = f"return {shown}.map(path => path.getAttribute('d').length)"
    eventually(lambda: min(browser.run(curves)) > 20, "each chart that is shown has a curve")
    assert browser.console() == []
    assert endpoint.running.stop() == 0
    eventually(lambda: browser.shown("banner"), "the page notices the end")


def test_texts_of_others_are_shown_as_they_are_and_do_nothing(
    browser: Browser, server: HttpServer, metrics: Metrics
) -> None:
    now = metrics.phase_since + 299
    metrics.trouble = Trouble(specimen.HOSTILE, f"</p><script>document.title='taken'</script>{specimen.HOSTILE}", now)
    metrics.enter(WAITING, now, specimen.HOSTILE)
    metrics.stream = metrics.wal_status = specimen.HOSTILE
    browser.open(url(server))
    filled(browser)
    for name in ("topics", "error-kind", "error-message", "summary", "about-slot"):
        assert specimen.HOSTILE in browser.text(name)
    assert browser.run("return [document.images.length, document.scripts.length]") == [0, 1]
    assert browser.title().startswith("blocked by PostgreSQL · ")
    assert browser.console() == []


def test_the_policy_lets_no_script_in_and_the_page_loads_nothing_from_elsewhere(
    browser: Browser, server: HttpServer
) -> None:
    browser.open(url(server))
    filled(browser)
    loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert {name for name in loaded if not name.startswith("data:")} == {f"{url(server)}status"}
    with pytest.raises(Exception, match="TrustedHTML"):
        browser.run("document.body.innerHTML = '<b>x</b>'")
    browser.console()
    browser.run(
        "const s = document.createElement('style'); s.textContent = 'h1 { color: red }'; document.head.append(s)"
    )
    assert any("style-src" in message for message in browser.console())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark_whatever_the_state(
    browser: Browser, server: HttpServer, metrics: Metrics, dark: bool
) -> None:
    metrics.safe = None
    browser.open(url(server), dark=dark, still=True)
    filled(browser)
    browser.run("document.getElementById('banner').hidden = false; put('banner', 'The publisher does not answer.')")
    for tone in TONES:
        browser.run("document.getElementById('hero').dataset.tone = arguments[0]", tone)
        texts = dict(browser.run(CONTRAST))
        assert len(texts) > 60
        assert {text: ratio for text, ratio in texts.items() if ratio < 4.5} == {}
    back = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(int(part) for part in back[4:-1].split(", ")) < 128) is dark


@pytest.mark.parametrize("width", [320, 390, 760, 1920])
def test_no_window_is_too_narrow(browser: Browser, server: HttpServer, metrics: Metrics, width: int) -> None:
    metrics.events[LONG] += 123_456_789
    metrics.bytes[LONG] += 123_456_789_000
    metrics.trouble = Trouble("KafkaUnavailable", LONG * 2, metrics.phase_since)
    browser.open(url(server), width=width, height=900)
    filled(browser)
    assert LONG in browser.text("topics")
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_page_shows_an_unreachable_publisher_and_its_return(browser: Browser, metrics: Metrics) -> None:
    with HttpServer(LOOPBACK, Application(metrics, specimen.IDENTITY)) as server:
        browser.open(url(server))
        filled(browser)
        assert not browser.shown("banner")
    eventually(lambda: browser.shown("banner"), "the page notices")
    assert browser.text("banner").startswith("The publisher does not answer. The data shown is from ")
    assert browser.title() == "no answer · cdc-publisher"
    assert browser.run("return document.getElementById('main').className") == "stale"
    assert browser.text("delivered") == "30,000", "the last numbers stay"
    with HttpServer(server.addresses[0], Application(metrics, specimen.IDENTITY)):
        eventually(lambda: not browser.shown("banner"), "the page notices the return")
    assert "streaming" in browser.title()


def test_screen_readers_announce_a_change_once(browser: Browser, server: HttpServer, metrics: Metrics) -> None:
    browser.open(url(server))
    filled(browser)
    browser.run(
        "window.heard = []; new MutationObserver(() => heard.push(document.getElementById('said').textContent))"
        ".observe(document.getElementById('said'), {childList: true, subtree: true})"
    )
    assert browser.text("said") == "The publisher is streaming."
    metrics.trouble = Trouble("KafkaUnavailable", "no broker answers", metrics.phase_since)
    metrics.enter(WAITING, metrics.phase_since + 290, "no broker answers")
    eventually(lambda: browser.text("state") == "Blocked by Kafka", "another state")
    metrics.enter(STREAMING, metrics.phase_since + 300)
    eventually(lambda: browser.text("state") != "Blocked by Kafka", "back")
    asked = browser.run("return performance.getEntriesByType('resource').length")
    eventually(
        lambda: browser.run("return performance.getEntriesByType('resource').length") >= asked + 2, "it asks again"
    )
    heard = browser.run("return heard")
    assert heard[0] == "The publisher is blocked by Kafka."
    assert len(heard) == 2
    named = browser.run(
        "return [...document.querySelectorAll('section, figure svg')].every(each => each.ariaLabel"
        " || document.getElementById(each.getAttribute('aria-labelledby'))?.textContent)"
    )
    assert named is True
    assert "Events per second, last 5 minutes: now 100" in browser.run(
        "return document.querySelector('#chart-rate svg').ariaLabel"
    )


def test_pointing_at_a_chart_shows_the_value_at_that_time(browser: Browser, server: HttpServer) -> None:
    browser.open(url(server))
    filled(browser)
    browser.run(
        "const plot = document.querySelector('#chart-rate .plot'), box = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width / 2, clientY: box.top + 5}))"
    )
    assert browser.run(
        "return /^\\d\\d:\\d\\d:\\d\\d · 100$/.test(document.querySelector('#chart-rate output').innerText)"
    )
    assert browser.run("return document.querySelector('#chart-rate .cursor').getAttribute('visibility')") == "visible"


@pytest.fixture
def fleet() -> Iterator[HttpServer]:
    with HttpServer(LOOPBACK, specimen.fleet(more=specimen.TROUBLED)) as server:
        yield server


def test_the_page_of_a_fleet_shows_first_which_units_need_somebody(browser: Browser) -> None:
    with HttpServer(LOOPBACK, specimen.fleet(more=specimen.TROUBLED)) as fleet:
        browser.open(url(fleet))
        filled(browser)
        rows = (
            "return [...document.querySelectorAll('#units tr')]"
            ".map(row => [row.cells[0].firstChild.data, row.cells[1].innerText])"
        )
        assert browser.run(rows) == [
            ["gone", "no file"],
            ["lost", "failed"],
            ["away", "waiting"],
            ["new", "unregistered"],
            ["cart", "working"],
            ["shop", "working"],
            ["spare", "standby"],
            ["zoo", "elsewhere"],
        ]
        assert browser.title() == "ready, 1 problem \N{MIDDLE DOT} fleet default \N{MIDDLE DOT} cdc-publisher"
        assert browser.text("said") == "The instance is ready, 1 problem."
        assert "replication slot 'lost' does not exist" in browser.text("problem-list")
        assert specimen.HOSTILE in browser.text("units")
        assert browser.run("return [document.images.length, document.scripts.length]") == [0, 1]
        assert browser.console() == []
        assert not browser.shown("banner")
    eventually(lambda: browser.shown("banner"), "the page notices the end")
    assert browser.text("banner").startswith("The instance does not answer. The data shown is from ")
    assert browser.title() == "no answer \N{MIDDLE DOT} cdc-publisher"


@pytest.mark.parametrize(("width", "dark"), [(320, False), (1200, True)], ids=["narrow", "dark"])
def test_the_page_of_a_fleet_can_be_read_in_any_window_and_light(
    browser: Browser, fleet: HttpServer, width: int, dark: bool
) -> None:
    browser.open(url(fleet), width=width, dark=dark, still=True)
    filled(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    texts = dict(browser.run(CONTRAST))
    assert len(texts) > 20
    assert {text: ratio for text, ratio in texts.items() if ratio < 4.5} == {}
