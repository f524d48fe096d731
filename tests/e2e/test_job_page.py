"""The page of a job in a real browser: its log, live and long ago, and its curves."""

from collections.abc import Iterator

import pytest
from browser import BINARY, Browser
from fleet import Fleet, wait_for
from wire_worker import WireWorker, log, metric

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium on this machine")

PATIENT = {"ST_SILENT_AFTER_SECONDS": "300", "ST_LEASE_TTL_SECONDS": "600"}
"""The worker's heartbeats are those that a test sends."""
HOSTILE = {
    "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>": None,
    "\x1b[31mred\x1b[0m\x1b[2J \x1b]0;title\x07end": "red end",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x1b]never ended": "⟨U+001B⟩]never ended",
    "invoice\u202efdp.exe\u202c \u2066x": "invoice⟨U+202E⟩fdp.exe⟨U+202C⟩ ⟨U+2066⟩x",
    "5%\r10%\r\nbell\x07\x9b": "5%\n10%\nbell⟨U+0007⟩⟨U+009B⟩",
    "hid\u200bden \U000e0041": "hid⟨U+200B⟩den ⟨U+E0041⟩",
    "שלום, 漢字 👩‍💻 é": None,
}
"""Text of lines, and as what it is shown; none: as it is."""


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("job-page"), PATIENT)
    yield made
    made.close()


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """A controller without workers and jobs."""
    yield shared_fleet
    shared_fleet.clear()


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[WireWorker]:
    made = WireWorker(fleet)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_browser(
    shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.sign_in(shared_fleet.controller.url, "admin", "correct horse battery")
    yield opened
    opened.close()


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    shared_browser.complaints.clear()
    return shared_browser


def begin(fleet, worker):
    """A job that runs; gives its id."""
    fleet.client.submit({"name": "portraits", "noop": {"seconds": 1}})
    return worker.begin()


def said(browser):
    return browser.run("[...document.querySelectorAll('#log-lines .said')].map(e => e.textContent)")


def scroll(browser, to):
    browser.run(f"document.querySelector('#log').scrollTop = {to}")


def test_a_log_is_followed_paused_and_read_back_to_its_beginning(fleet, worker, browser):
    job_id = begin(fleet, worker)
    worker.ship([log(f"early {n}") for n in range(900)])
    worker.end("preempted")
    worker.begin()
    worker.ship([log(text) for text in HOSTILE] + [log("hot", "warning"), log("bad", "error")])

    browser.open(f"{fleet.controller.url}/jobs/{job_id}")
    browser.wait_for_text("#log-lines", "bad")
    assert said(browser)[-len(HOSTILE) - 2 : -2] == [
        as_is or text for text, as_is in HOSTILE.items()
    ]
    assert browser.run("document.querySelectorAll('#log-lines :is(script, img)').length") == 0
    assert browser.text("#log-lines p:nth-last-child(2)").endswith("WARNING hot")
    assert browser.text("#log-count") == "500 lines here"
    worker.ship([log("live")])
    browser.wait_for_text("#log-lines", "live")

    scroll(browser, 50)
    browser.wait_for("document.querySelector('#follow').innerText === 'Follow'")
    browser.wait_for("document.querySelectorAll('#log-lines p').length > 900")
    scroll(browser, 0)
    browser.wait_for("document.querySelector('#older-lines').hidden")
    assert said(browser)[:900] == [f"early {n}" for n in range(900)]
    worker.ship([log(f"flood {n}") for n in range(3500)])
    browser.wait_for("document.querySelector('#follow').innerText === 'Follow (3,500 new)'")
    assert said(browser)[0] == "early 0"
    browser.click("#newer-lines")
    browser.wait_for_text("#log-lines", "flood 499")
    browser.click("#follow")
    browser.wait_for_text("#log-lines", "flood 3499")
    worker.ship([log(f"more {n}") for n in range(4100)])
    browser.wait_for_text("#log-lines", "more 4099")
    assert said(browser) == [f"more {n}" for n in range(100, 4100)]  # no more than so many are held

    browser.fill("#log-filter", "MORE 409")
    assert browser.text("#log-count") == "11 of 4,000 lines here match"
    browser.fill("#log-filter", "")
    worker.end()
    browser.fill("#log-attempt", "1")
    browser.wait_for_text("#log-lines p:last-child", "early 899")
    assert browser.complaints == []


def test_the_log_of_a_job_that_is_tried_again_goes_on(fleet, worker, browser):
    job_id = begin(fleet, worker)
    worker.ship([log("first try")])
    browser.open(f"{fleet.controller.url}/jobs/{job_id}")
    browser.wait_for_text("#log-lines", "first try")
    fleet.client.cancel(job_id)
    worker.end("cancelled")
    browser.wait_for_text("#jobs", "cancelled")

    browser.click("#jobs [data-act=retry]")
    assert worker.begin() == job_id
    worker.ship([log("second try")])
    browser.wait_for_text("#log-lines", "second try")
    worker.end()
    browser.wait_for_text("#jobs", "succeeded")
    assert browser.complaints == []


@pytest.fixture
def frozen_redis(fleet):
    """It takes connections and answers nothing; one that is killed is started again at once."""
    valkey = fleet.controller.valkey()
    valkey.suspend()
    yield
    valkey.resume()


@pytest.mark.usefixtures("frozen_redis")
def test_an_archived_log_and_the_curves_are_read_without_redis(fleet, worker, browser):
    job_id = begin(fleet, worker)
    browser.open(f"{fleet.controller.url}/jobs/{job_id}")
    browser.wait_for_text("#log", "Nothing has been written.")
    worker.ship([metric(step, loss=1 / (1 + step)) for step in range(0, 60, 5)])
    worker.ship([log("first try")])
    worker.end("preempted")
    worker.begin()
    worker.ship([metric(step, loss=1 / (1 + step), lr=0.1) for step in range(40, 100, 5)])
    worker.ship([log("[node 1] second try")])
    browser.wait_for_text("#log-lines", "second try")
    worker.end()
    moved = fleet.controller.data / "objects"
    wait_for("the archive", lambda: list(moved.rglob(f"{job_id}/journal/*/*.gz"))[1:])

    browser.open(f"{fleet.controller.url}/jobs/{job_id}")
    browser.wait_for_text("#log-lines", "second try")
    browser.wait_for("document.querySelectorAll('.chart').length === 2")
    label = browser.run("document.querySelector('.chart svg').getAttribute('aria-label')")
    assert label.startswith("loss, steps 0 to 95: from 1 to 0.010417")
    steps = browser.run("document.querySelector('.chart path').getAttribute('d').split('L').length")
    assert steps == 20  # what both attempts measured is there once
    assert browser.run("document.querySelectorAll('.chart .resume').length") == 1

    plain = browser.run("document.querySelector('.chart path').getAttribute('d')")
    browser.click("#log-scale")
    browser.wait_for(f"document.querySelector('.chart path').getAttribute('d') !== '{plain}'")
    browser.run(
        "document.querySelector('.chart svg').dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'Home' }))"
    )
    assert browser.text(".chart output") == "1 at step 0"

    # As in a page that came without TLS, which has no other way to the clipboard.
    browser.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    browser.run(
        "document.addEventListener('copy', () => (window.copied = document.activeElement.value))"
    )
    browser.fill("#log-filter", "SECOND")
    browser.run("document.querySelector('#copy-log').focus()")
    browser.press("Enter")  # browsers let only those copy who press something
    browser.wait_for("window.copied")
    assert browser.run("copied") == "2026-03-01T08:00:00Z 2 INFO [node 1] second try\n"
    assert browser.run("document.activeElement.id") == "copy-log"
    browser.fill("#log-filter", "")

    # What the page hands out is caught where the browser would store it.
    browser.run(
        "URL.createObjectURL = (blob) => { blob.text().then((text) => (window.saved = text));"
        " return '#'; }"
    )
    browser.click("#download-log")
    browser.wait_for("window.saved")
    saved = browser.run("saved").splitlines()
    assert [line.split(" ", 1)[1] for line in saved] == [
        "1 INFO first try",
        "2 INFO [node 1] second try",
    ]


def test_lines_of_a_gang_name_their_nodes(fleet, browser):
    browser.open(fleet.controller.url)
    drawn = browser.run(
        """import("/static/log_lines.js").then(({ LogLines }) => {
            const lines = new LogLines(document.createElement("div"));
            const line = (seq, message) =>
                ({ attempt: 1, seq, at: "2026-03-01T08:00:00Z", level: "info", message });
            lines.isGang = true;
            lines.append([line(1, "ready"), line(2, "[node 12] here")]);
            return [...lines.list.children].map((row) =>
                [".of-node", ".said"].map((part) => row.querySelector(part).textContent));
        })"""
    )
    assert drawn == [["node 0", "ready"], ["node 12", "here"]]
