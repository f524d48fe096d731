"""The pages in a real browser: what is shown, what the buttons do, what is said when it fails."""

import json
import subprocess
from collections.abc import Iterator

import httpx
import pyotp
import pytest
from browser import BINARY, Browser
from fleet import BIN, Fleet, wait_for

from st_client import Client
from st_client.errors import ClientError
from st_shared.protocol.queue import ShareRequest

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium on this machine")

PASSWORD = "correct horse battery"
UNWELCOME = "Failed to load resource"
"""How the browser reports an answer of 4xx, which some tests ask for."""


BUSY = {"index": 1, "code": "foreign_process", "message": "process 42 (python), 12 GiB"}
GPU_HOST = {
    "name": "gpu-7",
    "agent_version": "1",
    "inventory": {
        "hostname": "gpu-7",
        "slots": [
            {"index": index, "accelerator": "NVIDIA H100", "memory_gb": 80, "vendor": "nvidia"}
            for index in range(2)
        ],
        "cpus": 16,
        "memory_gb": 128,
        "disk_free_gb": 900,
        "platform": "Linux",
        "condition": {"warnings": [{"code": "amd_driver", "message": "AMD SMI: broken"}]},
    },
}


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("dashboard"))
    yield made
    made.close()


@pytest.fixture
def fleet(shared_fleet) -> Iterator[Fleet]:
    """A controller without workers and jobs: whatever is submitted waits."""
    yield shared_fleet
    shared_fleet.clear()


@pytest.fixture(scope="module")
def admins_browser(shared_fleet, tmp_path_factory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.sign_in(shared_fleet.controller.url, "admin", PASSWORD)
    yield opened
    opened.close()


@pytest.fixture
def admin(fleet, admins_browser) -> Iterator[Browser]:
    """The admin's browser on the page of jobs; every script must run without an error."""
    admins_browser.open(fleet.controller.url)
    admins_browser.complaints.clear()
    yield admins_browser
    assert errors_in(admins_browser) == []


@pytest.fixture
def browser(tmp_path) -> Iterator[Browser]:
    """A browser in which nobody is signed in."""
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()
    assert errors_in(opened) == []


def errors_in(browser):
    """Errors of scripts, and what the pages' policy forbade."""
    return [each for each in browser.complaints if not each.startswith(UNWELCOME)]


def submit(fleet, name, **fields):
    return fleet.client.submit({"name": name, "noop": {"seconds": 1}, **fields}).id


def row_of(name):
    """An expression that finds the row of a job."""
    is_its = f"(row) => row.querySelector('td strong')?.innerText === '{name}'"
    return f"[...document.querySelectorAll('#jobs tr')].find({is_its})"


def press_in(browser, name, act):
    browser.click_on(f"{row_of(name)}.querySelector('[data-act={act}]')")


def press_of_worker(browser, name, act):
    rows = "[...document.querySelectorAll('#worker-rows tr')]"
    row = f"{rows}.find((row) => row.innerText.includes('{name}'))"
    browser.click_on(f"{row}.querySelector('[data-act={act}]')")


def test_a_waiting_job_says_why_and_what_it_was_asked_for(fleet, admin):
    submit(fleet, "ahead", priority="high")
    submit(fleet, "waiting")

    press_in(admin, "waiting", "why")

    admin.wait_for_text(".explanation", "No worker that takes jobs is online")
    said = admin.text(".explanation")
    assert "asked for as normal" in said
    assert "default/default/admin" in said


def test_a_gpu_that_somebody_else_uses_is_shown_with_who(fleet, admin):
    token = fleet.client.create_join_token().token
    with httpx.Client(base_url=fleet.controller.url, timeout=60) as worker:
        registered = worker.post("/v1/worker/register", json=GPU_HOST, headers=bearer(token))
        credential = registered.raise_for_status().json()["credential"]
        told = {
            "condition": {"busy": [BUSY], **GPU_HOST["inventory"]["condition"]},
            "leaving": True,
        }
        worker.post(
            "/v1/worker/heartbeat", json=told, headers=bearer(credential)
        ).raise_for_status()
    admin.wait_for_text("#workers", "slot 1 is not offered: process 42 (python), 12 GiB")
    admin.wait_for_text("#workers", "AMD SMI: broken")


def test_a_worker_is_cordoned_let_work_again_and_deleted(fleet, admin):
    token = fleet.client.create_join_token().token
    host = {**GPU_HOST, "name": "gpu-8"}
    url = f"{fleet.controller.url}/v1/worker/register"
    httpx.post(url, json=host, headers=bearer(token), timeout=60).raise_for_status()
    admin.open(f"{fleet.controller.url}/workers")

    press_of_worker(admin, "gpu-8", "cordon")
    admin.wait_for_text("dialog", "Cordon gpu-8?")
    admin.click("dialog button[value=yes]")
    admin.wait_for_text("#worker-rows", "cordoned by user:admin")
    press_of_worker(admin, "gpu-8", "activate")
    admin.wait_for("!document.querySelector('#worker-rows').innerText.includes('cordoned')")
    press_of_worker(admin, "gpu-8", "delete")
    admin.wait_for_text("dialog", "the history of its attempts is kept")
    admin.click("dialog button[value=yes]")
    admin.wait_for("!document.querySelector('#worker-rows').innerText.includes('gpu-8')")
    assert [each.name for each in fleet.client.workers() if each.name == "gpu-8"] == []


class HostWithJob:
    """A worker that holds a job and does nothing else."""

    def __init__(self, fleet, name):
        self.job_id = submit(fleet, "held", preemptible=True)
        self._calls = httpx.Client(base_url=f"{fleet.controller.url}/v1/worker", timeout=60)
        self._calls.headers = bearer(fleet.client.create_join_token().token)
        joined = self._post("/register", {**GPU_HOST, "name": name}).json()
        self._calls.headers = bearer(joined["credential"])
        self.id, self._told = joined["worker_id"], {"deaf": True}
        [offer] = wait_for("an offer", lambda: self.beat()["offers"])
        self.attempt_id = offer["attempt_id"]
        lease = self._post(f"/attempts/{self.attempt_id}/claim").json()
        held = {"attempt_id": self.attempt_id, "epoch": lease["epoch"]}
        self._told = {"holding": [held]}

    def beat(self):
        return self._post("/heartbeat", self._told).json()

    def is_refused(self):
        return self._post("/heartbeat", self._told).status_code == 401

    def close(self):
        self._calls.close()

    def _post(self, path, body=None):
        return self._calls.post(path, json=body)


@pytest.fixture
def host(fleet):
    made = HostWithJob(fleet, "gpu-10")
    yield made
    made.close()


@pytest.fixture
def press(fleet, admin):
    """Presses and agrees."""
    admin.open(f"{fleet.controller.url}/workers")

    def press_one(act, asked):
        admin.click(f"#worker-rows [data-act={act}]")
        admin.wait_for_text("dialog", asked)
        admin.click("dialog button[value=yes]")
        admin.wait_for("!document.querySelector('dialog')")

    return press_one


def desired_of(fleet, host):
    [found] = [each for each in fleet.client.workers(retired=True) if each.id == host.id]
    return found.desired


def wait_until_unlisted(admin):
    admin.wait_for("!document.querySelector('#worker-rows').innerText.includes('gpu-10')")


def test_a_worker_is_drained_rotated_revoked_and_retired(fleet, admin, host, press):
    press("drain", "1 job there are waited for")
    admin.wait_for_text("#worker-rows", "draining by user:admin")
    for _ in range(2):
        assert host.beat()["desired"] == desired_of(fleet, host) == "draining"
    press("drain-now", "Preemptible jobs stop at a checkpoint")
    [stop] = wait_for("the stop", lambda: host.beat()["stops"])
    assert stop == {"attempt_id": host.attempt_id, "reason": "preempt"}
    assert desired_of(fleet, host) == "draining"
    press("rotate", "It fetches a new credential")
    assert wait_for("the order", lambda: host.beat()["rotate"])
    press("revoke", "Its credential is void at once")
    assert wait_for("the end", host.is_refused)
    assert fleet.client.job(host.job_id).state == "queued"
    press("retire", "It may not come back")
    wait_until_unlisted(admin)
    assert desired_of(fleet, host) == "retired"


def test_a_worker_that_holds_a_job_is_deleted_by_force_alone(fleet, admin, host, press):
    with pytest.raises(ClientError, match="gpu-10 holds 1 attempts"):
        fleet.client.delete_worker(host.id)
    assert not host.is_refused()
    press("delete", "1 job there are queued again")
    wait_until_unlisted(admin)
    assert host.is_refused()
    assert fleet.client.job(host.job_id).state == "queued"
    assert [each.outcome for each in fleet.client.attempts(host.job_id)] == ["preempted"]


def test_labels_are_set_and_a_worker_is_to_clear_its_disk(fleet, admin):
    token = fleet.client.create_join_token().token
    url = f"{fleet.controller.url}/v1/worker/register"
    host = {**GPU_HOST, "name": "gpu-9"}
    joined = httpx.post(url, json=host, headers=bearer(token), timeout=60).json()
    admin.open(f"{fleet.controller.url}/workers")

    def labels():
        [found] = [each for each in fleet.client.workers() if each.id == joined["worker_id"]]
        return found.set_labels

    press_of_worker(admin, "gpu-9", "labels")
    admin.fill(".labels label:nth-of-type(1) input", "no key")
    admin.click(".labels form button")
    admin.wait_for_text(".labels .problem", "begin with a letter or digit")
    admin.fill(".labels label:nth-of-type(1) input", "pool")
    admin.fill(".labels label:nth-of-type(2) input", "a, b=<b>")
    admin.click(".labels form button")
    admin.wait_for_text(".labels li", "pool=a, b=<b>")
    assert labels() == {"pool": "a, b=<b>"}
    admin.click(".labels [data-act=remove]")
    admin.wait_for("!document.querySelector('.labels li')")
    assert labels() == {}
    admin.click(".labels [data-act=close]")
    admin.wait_for("!document.querySelector('.labels')")

    press_of_worker(admin, "gpu-9", "collect-garbage")
    admin.wait_for_text("dialog", "Clear disk of gpu-9?")
    admin.click("dialog button[value=yes]")
    beat = f"{fleet.controller.url}/v1/worker/heartbeat"
    told = {"json": {"leaving": True}, "headers": bearer(joined["credential"]), "timeout": 60}
    wait_for("the order", lambda: httpx.post(beat, **told).json()["collect_garbage"])


def test_a_join_token_is_shown_once_and_revoked(fleet, admin):
    admin.open(f"{fleet.controller.url}/workers")
    field = "#new-token label:nth-of-type"
    admin.fill(f"{field}(2) input", "soon")
    admin.click("#new-token form > button")
    admin.wait_for_text(f"{field}(2) .problem", "write a length of time")
    admin.fill(f"{field}(2) input", "2h")
    admin.fill(f"{field}(3) input", "rack=7, pool=a")
    admin.click("#new-token form > button")
    admin.wait_for_text("#token-secret", "st-worker join")

    secret = admin.text("#token-secret code").split()[0].removeprefix("ST_JOIN_TOKEN=")
    [token] = [each for each in fleet.client.join_tokens() if each.labels]
    assert token.labels == {"rack": "7", "pool": "a"}
    admin.click("[data-act=put-away]")
    assert not admin.run(f"document.documentElement.outerHTML.includes('{secret}')")

    row = "#token-rows tr:first-child"
    admin.wait_for_text(row, token.id)
    admin.click(f"{row} [data-act=revoke]")
    admin.click("dialog button[value=yes]")
    admin.wait_for(f"!document.querySelector('#token-rows').innerText.includes('{token.id}')")
    url = f"{fleet.controller.url}/v1/worker/register"
    assert httpx.post(url, json=GPU_HOST, headers=bearer(secret), timeout=60).status_code == 401


def test_a_job_that_is_submitted_meanwhile_appears(fleet, admin):
    admin.wait_for("document.querySelector('#link').dataset.state === 'live'")
    submit(fleet, "late")
    admin.wait_for(row_of("late"))


def test_the_panel_and_the_focus_outlast_a_refresh(fleet, admin):
    submit(fleet, "kept open")
    why = f"{row_of('kept open')}.querySelector('[data-act=why]')"
    admin.wait_for(f"({why}.focus(), document.activeElement === {why})")

    admin.press("Enter")
    admin.wait_for_text(".explanation", "Expected start")
    fleet.client.change_share("default", ShareRequest(max_jobs=0))
    admin.wait_for_text(".explanation", "0 of 0 jobs running")

    assert admin.run("document.activeElement.dataset.act") == "why"
    assert admin.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    fleet.client.remove_share("default")


def test_a_job_is_raised_and_overridden(fleet, admin):
    job = submit(fleet, "raised")
    press_in(admin, "raised", "why")
    forms = ".panel form:nth-child"

    admin.wait_for("(document.querySelector('.panel form').id = 'before')")
    admin.fill(f"{forms}(1) select", "high")
    admin.click(f"{forms}(1) button")
    wait_for("the class", lambda: fleet.client.job(job).priority == "high")
    admin.wait_for_text(".explanation", "asked for as high")
    admin.wait_for("!document.querySelector('#before')")  # both forms are drawn anew

    admin.fill(f"{forms}(2) select", "50")
    admin.click(f"{forms}(2) button")
    wait_for("the override", lambda: fleet.client.job(job).override == 50)
    admin.wait_for_text(".explanation", "overridden with above all")


def test_cancelling_asks_first_and_a_retry_brings_the_job_back(fleet, admin):
    job = submit(fleet, "doubted")

    press_in(admin, "doubted", "cancel")
    admin.wait_for("document.querySelector('dialog').open")
    admin.press("Escape")
    admin.wait_for("!document.querySelector('dialog')")
    assert fleet.client.job(job).state == "queued"

    press_in(admin, "doubted", "cancel")
    admin.click("dialog button[value=yes]")
    wait_for("the end", lambda: fleet.client.job(job).state == "cancelled")

    press_in(admin, "doubted", "retry")
    wait_for("the job", lambda: fleet.client.job(job).state == "queued")


def test_weights_and_limits_are_set_in_place(fleet, admin):
    submit(fleet, "counted")
    admin.open(f"{fleet.controller.url}/queue")
    admin.click(".depth-1 [data-act=edit]")
    field = ".share-form label:nth-of-type"

    admin.fill(f"{field}(1) input", "0")
    admin.click(".share-form button[type=submit]")
    admin.wait_for_text(f"{field}(1) .problem", "greater than 0")

    admin.fill(f"{field}(1) input", "2.5")
    admin.fill(f"{field}(3) input", "8")
    admin.click(".share-form button[type=submit]")
    admin.wait_for_text(".depth-1", "0 of 8")
    assert "2.5" in admin.text(".depth-1")

    admin.click(".depth-1 [data-act=edit]")
    admin.click(".share-form button.bad")
    admin.click("dialog button[value=yes]")
    admin.wait_for("!document.querySelector('.depth-1').innerText.includes('2.5')")


def test_shares_are_reckoned_among_those_who_want_slots(admin):
    shares = admin.run(
        """import("/static/tenant_shares.js").then(({ childrenOf, sharesOf }) => {
            const tenant = (path, weight, usage, active) =>
                ({ path, weight, usage, forfeited: 0, active });
            return Object.fromEntries(sharesOf(childrenOf([
                tenant("", 1, 0, true),
                tenant("a", 3, 10, true), tenant("b", 1, 30, true), tenant("idle", 9, 99, false),
                tenant("a/only", 5, 10, true),
            ])));
        })"""
    )
    assert shares == {
        "a": {"used": 0.25, "entitled": 0.75},
        "b": {"used": 0.75, "entitled": 0.25},
    }


def test_a_search_finds_one_among_many_tenants_and_the_way_to_it(admin):
    found = admin.run(
        """import("/static/tenant_shares.js").then(({ matchesOf }) => {
            const tenants = Array.from({ length: 500 }, (_, i) =>
                ({ path: `org${i % 20}/team${i % 100}/user${i}` }));
            const { matching, above } = matchesOf(tenants, "USER499");
            return [...matching, ...above];
        })"""
    )
    assert found == ["org19/team99/user499", "org19/team99", "org19"]


def test_lengths_of_time_are_read_as_in_job_files(admin):
    lengths = {"90s": 90, "1h30m": 5400, "2d": 172_800, "0.5s": 0.5, "0s": 0, "5": None, "1w": None}
    read = admin.run(
        f"""import("/static/words.js").then(({{ secondsOf, written }}) =>
            {list(lengths)}.map((text) =>
                [secondsOf(text), secondsOf(written(secondsOf(text)))]))"""
    )
    # What is no length of time is NaN, which arrives as nothing.
    assert read == [[seconds, seconds] for seconds in lengths.values()]


def test_a_share_of_somebody_who_has_not_come_yet_is_shown(fleet, admin):
    admin.open(f"{fleet.controller.url}/queue")
    admin.click("#add-share")
    admin.fill("#new-share label:nth-of-type(1) input", "lab/vision")
    admin.fill("#new-share label:nth-of-type(2) input", "4")
    admin.click("#new-share button[type=submit]")

    admin.wait_for("document.querySelector('#new-share').hidden")
    admin.fill("#filter", "vision")
    admin.wait_for_text(".depth-2", "idle")
    assert "4" in admin.text(".depth-2").split()
    fleet.client.remove_share("lab/vision")


def test_the_rules_are_changed_and_mistakes_are_named(fleet, admin):
    admin.open(f"{fleet.controller.url}/queue")
    admin.click("summary")
    first = "#rules label:nth-of-type(1)"

    admin.fill(f"{first} input", "soon")
    admin.click("#rules button")
    admin.wait_for_text(f"{first} .problem", "write a length of time")

    admin.fill(f"{first} input", "1h30m")
    admin.click("#rules button")
    wait_for("the rule", lambda: fleet.client.queue_policy().ageing_interval == 5400)


def test_an_array_is_capped_and_cancelled(fleet, admin):
    array = fleet.client.submit_array(
        {"noop": {}}, name="grid", grid={"noop.seconds": list(range(60))}
    )
    admin.open(f"{fleet.controller.url}/arrays")
    admin.wait_for_text("#arrays", "60 queued")

    admin.open(f"{fleet.controller.url}/arrays/{array.id}")
    admin.wait_for("document.querySelectorAll('#jobs tr').length === 50")
    admin.click("#older")
    admin.wait_for("document.querySelectorAll('#jobs tr').length === 10")

    admin.fill("#cap-form input", "3")
    admin.click("#cap-form button")
    wait_for("the cap", lambda: fleet.client.array(array.id).max_running == 3)

    admin.click("#cancel-all")
    admin.wait_for_text("dialog", "Cancel 60 jobs of grid?")
    admin.click("dialog button[value=yes]")
    admin.wait_for_text("#counts", "60 cancelled")
    admin.wait_for("document.querySelector('#cancel-all').hidden")


@pytest.fixture
def asking(fleet) -> Iterator[Client]:
    """A researcher whose jobs all wait for approval."""
    rule = {"name": "ask first", "condition": "role", "pattern": "researcher"}
    with httpx.Client(base_url=fleet.controller.url, headers=bearer(fleet.key), timeout=60) as api:
        user = {"username": "rita", "password": PASSWORD}
        api.post("/v1/users", json=user).raise_for_status()
        made = api.post("/v1/approval-rules", json=rule).raise_for_status().json()
        with Client(fleet.controller.url) as nobody:
            key = nobody.create_api_key("rita", PASSWORD, "test").key
        with Client(fleet.controller.url, key) as rita:
            yield rita
        api.delete(f"/v1/approval-rules/{made['id']}").raise_for_status()


def test_jobs_are_approved_and_rejected_some_at_a_time(fleet, admin, asking):
    jobs = {name: asking.submit({"name": name, "noop": {}}).id for name in ("one", "two", "three")}
    admin.open(f"{fleet.controller.url}/approvals")
    admin.wait_for_text("#approval-rows", "ask first: its user is a researcher")
    admin.wait_for("document.querySelectorAll('#approval-rows input').length === 3")
    assert admin.run("document.querySelector('#approve').disabled")

    admin.click('input[aria-label="Choose three"]')
    admin.click("#reject")
    admin.fill("#reason", "too many")
    admin.click("#say")
    wait_for("the word", lambda: fleet.client.job(jobs["three"]).state == "rejected")
    admin.wait_for("document.querySelectorAll('#approval-rows input').length === 2")
    assert "too many" in fleet.client.job(jobs["three"]).reason.message

    admin.click("#all")
    admin.wait_for_text("#chosen", "2 jobs chosen")
    admin.click("#approve")
    wait_for("the others", lambda: fleet.client.job(jobs["two"]).state == "queued")
    assert fleet.client.job(jobs["one"]).state == "queued"
    admin.wait_for("!document.querySelector('#no-approvals').hidden")


def set_limit(browser, **fields):
    for name, value in fields.items():
        browser.fill(f"#quota-form [name={name}]", value)
    browser.click("#quota-form button")


def test_limits_are_set_for_all_and_for_each_of_a_role_and_removed(fleet, admin):
    admin.open(f"{fleet.controller.url}/quotas")
    set_limit(admin, path="default", kind="running_jobs", amount="9")
    admin.wait_for_text("#quota-rows", "running_jobs")
    admin.wait_for("document.querySelector('#quota-form [name=amount]').value === ''")
    set_limit(admin, path="default", role="researcher", amount="10")
    admin.wait_for_text("#notices", "no limit below it can be higher")
    set_limit(admin, amount="5")
    admin.wait_for_text("#role-quota-rows", "each researcher of default")
    limits = [(each.path, each.role, int(each.amount)) for each in fleet.client.quotas()]
    assert limits == [("default", None, 9), ("default", "researcher", 5)]

    for rows in ("#role-quota-rows", "#quota-rows"):
        admin.click(f"{rows} [data-act=remove]")
        admin.click("dialog button[value=yes]")
        admin.wait_for(f"!document.querySelector('{rows} tr')")
    assert fleet.client.quotas() == []


def test_a_person_is_made_changed_exempted_and_disabled(fleet, admin):
    admin.open(f"{fleet.controller.url}/people")
    admin.wait_for("document.querySelector('#user-form select').value === 'researcher'")
    admin.fill("#team-form input", "default/sound")
    admin.click("#team-form button")
    admin.wait_for_text("#team-rows", "default/sound")
    admin.fill("#user-form [name=username]", "zoe")
    admin.click("#user-form button")
    admin.wait_for("document.querySelector('#reset-text').innerText.length > 20")

    admin.fill('[aria-label="Role of zoe"]', "lead")
    wait_for("the role", lambda: fleet.client.people.user("zoe").role == "lead")
    admin.open(f"{fleet.controller.url}/people")  # else her row may be drawn anew at any moment
    admin.wait_for("document.querySelector('[aria-label=\"Role of zoe\"]')?.value === 'lead'")
    admin.run(
        "document.querySelector('[aria-label=\"Role of zoe\"]').closest('tr')"
        ".querySelector('details').open = true"
    )
    admin.fill('[aria-label="Permission for zoe"]', "job.cancel.all")
    admin.click('details[open] button[value="deny"]')
    wait_for("the denial", lambda: fleet.client.people.user("zoe").denied == ["job.cancel.all"])
    admin.click('[aria-label="Disable: zoe"]')
    admin.click("dialog button[value=yes]")
    admin.wait_for("document.querySelector('[aria-label=\"Enable: zoe\"]')")
    assert fleet.client.people.user("zoe").disabled
    admin.click('[aria-label="Archive default/sound"]')
    admin.wait_for("document.querySelector('dialog[open]')")
    admin.click("dialog button[value=yes]")
    admin.wait_for_text("#team-rows", "archived")


def test_what_does_not_exist_is_said_in_words(fleet, admin):
    admin.open(f"{fleet.controller.url}/arrays/arr_none")
    admin.wait_for_text("#notices", "There is no job array arr_none")


@pytest.mark.parametrize(("role", "sees_queue"), [("researcher", True), ("viewer", False)])
def test_who_may_not_steer_has_nothing_to_press(fleet, browser, role, sees_queue):
    add_user(fleet, role)
    submit(fleet, "waiting")
    browser.sign_in(fleet.controller.url, role, PASSWORD)
    assert browser.run("Boolean(document.querySelector('a[href=\"/queue\"]'))") is sees_queue

    browser.open(f"{fleet.controller.url}/queue")
    if sees_queue:
        browser.click("summary")
        browser.wait_for_text("#rules", "Ageing")
        browser.wait_for("document.querySelector('#link').dataset.state === 'live'")
        assert "The whole system" not in browser.text("#tenants")  # their own shares alone
        assert browser.run("document.querySelectorAll('#tenants [data-act=edit]').length") == 0
        assert browser.run("document.querySelectorAll('#rules input').length") == 0
        assert browser.run("document.querySelector('#add-share').hidden")
    else:
        browser.wait_for_text("#notices", "queue.view")

    browser.open(f"{fleet.controller.url}/workers")
    browser.wait_for("document.querySelector('#link').dataset.state === 'live'")
    assert browser.run("document.querySelector('#join-tokens').hidden")
    assert browser.run("document.querySelectorAll('#worker-rows button').length") == 0


def test_a_person_sets_up_a_second_factor_and_signs_in_with_it(fleet, browser):
    url = fleet.controller.url
    add_user(fleet, "lead")
    browser.sign_in(url, "lead", PASSWORD)
    browser.open(f"{url}/account")
    browser.wait_for_text("#session-rows", "(this one)")
    browser.wait_for_text("#factor-state", "No code is asked for")
    browser.fill("#factor-form input[name=password]", PASSWORD)
    browser.click("#factor-form button")
    browser.wait_for("document.querySelector('#factor-base32').innerText.length === 32")
    code = pyotp.TOTP(browser.text("#factor-base32")).now()
    browser.fill("#confirm-form input[name=code]", code)
    browser.click("#confirm-form button")
    browser.wait_for_text("#factor-state", "10 recovery codes are left")
    spare = browser.text("#recovery-codes").split()[0]
    browser.click("#logout")
    browser.wait_for("location.pathname === '/login' && document.readyState === 'complete'")
    browser.fill("input[name=username]", "lead")
    browser.fill("input[name=password]", PASSWORD)
    browser.click("button[type=submit]")
    browser.wait_for("document.querySelector('#code').checkVisibility()")
    browser.fill("input[name=code]", spare)
    browser.click("button[type=submit]")
    browser.wait_for("location.pathname === '/' && document.readyState === 'complete'")
    browser.open(f"{url}/account")
    browser.wait_for_text("#factor-state", "9 recovery codes are left")
    reply = httpx.get(
        f"{url}/v1/audit",
        headers=bearer(fleet.key),
        params={"action": "second_factor.*"},
        timeout=60,
    )
    assert [item["action"] for item in reply.json()["items"]] == [
        "second_factor.recovery_code_used",
        "second_factor.on",
        "second_factor.begun",
    ]


def test_a_controller_that_is_gone_is_missed_until_it_answers_again(fleet, admin):
    admin.open(f"{fleet.controller.url}/queue")
    admin.wait_for("document.querySelector('#link').dataset.state === 'live'")

    fleet.controller.kill()
    admin.wait_for_text("#notices", "The controller cannot be reached")
    assert admin.run("document.querySelector('#link').dataset.state") == "trouble"

    fleet.controller.start()
    admin.wait_for("document.querySelector('#link').dataset.state === 'live'")
    assert admin.text("#notices") == ""


def add_user(fleet, role):
    subprocess.run(
        [
            *(str(BIN / "st-controller"), "user", "add", role, "--role", role),
            *("--password-stdin", "--data", str(fleet.controller.data)),
        ],
        input=PASSWORD.encode(),
        check=True,
        capture_output=True,
    )


def test_videos_and_sounds_are_played_where_pictures_are_shown(admin):
    """Each sample as its kind; what plays is not drawn anew until there are others."""
    samples = [
        {"id": str(place), "path": f"samples/{name}", "step": 200, "url": f"/static/{name}"}
        for place, name in enumerate(["a.mp4", "b.wav", "c.PNG"])
    ]
    admin.run(
        f"import('/static/samples.js').then((it) => window.again = () => it.drawSamples("
        f"{{name: 'clips'}}, {json.dumps(samples)}))"
    )
    admin.run("again()")
    shown = "[...document.querySelectorAll('#sample-list .sample')]"
    assert admin.run(f"{shown}.map((each) => each.tagName)") == ["VIDEO", "AUDIO", "IMG"]
    assert admin.run(f"{shown}.map((each) => Boolean(each.controls))") == [True, True, False]
    assert (
        admin.run(f"{shown}[1].getAttribute('aria-label')") == "b.wav, sample of clips at step 200"
    )
    assert admin.text("#samples-of") == "clips, step 200"
    admin.run(f"window.first = {shown}[0]")
    admin.run("again()")
    assert admin.run(f"first === {shown}[0]")
