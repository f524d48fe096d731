"""``st`` against the real application: what the other tests here believe of it is true of it."""

import io
import json
import re
import socket
import threading

import httpx
import pyotp
import pytest
import uvicorn

from st_client.cli import run
from st_controller.app import create_app


@pytest.fixture
def controller(settings, clock):
    """URL and API key of a controller that places no jobs."""
    app = create_app(settings, clock=clock, dispatch=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        ready = threading.Event()
        startup = server.startup

        async def started(sockets=None):
            await startup(sockets)
            ready.set()

        server.startup = started
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(120)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        token = {"token": app.state.setup_token, "username": "ada", "password": "correct horse"}
        yield url, httpx.post(f"{url}/v1/auth/setup", json=token, timeout=60).json()["key"]
        server.should_exit = True
        thread.join()


@pytest.fixture
def st(controller, st_home, monkeypatch, capsys):
    """Runs ``st`` with ``--json``; gives what it answers, or its exit code where that is not 0."""
    url, key = controller
    monkeypatch.setenv("ST_URL", url)
    monkeypatch.setenv("ST_API_KEY", key)

    def run_st(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in [*arguments, "--json"]])
        return json.loads(capsys.readouterr().out) if code == 0 else code

    return run_st


@pytest.fixture
def login(controller, st_home, monkeypatch, capsys):
    """Runs ``st login`` as bob, the password on standard input; who that is, or the exit code."""
    url, _ = controller

    def run_login(password, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        capsys.readouterr()
        given = ["--username", "bob", "--password-stdin", "--json", *options]
        code = run(["login", url, *given])
        return json.loads(capsys.readouterr().out)["me"]["username"] if code == 0 else code

    return run_login


def test_one_signs_in_with_a_reset_token_and_with_a_code(st, login, controller, clock):
    url, _ = controller
    st("users", "add", "bob", "--no-password")
    token = st("users", "reset", "bob")["token"]
    assert login("first password") == 4
    assert login("short", "--reset-token", token) == 2
    assert login("first password", "--reset-token", "st_reset_nothing") == 4
    assert login("first password", "--reset-token", token) == "bob"
    assert login("second password", "--reset-token", token) == 4  # it counts once
    same_site = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=f"{url}/v1/auth", timeout=60, headers=same_site) as browser:
        name = {"username": "bob", "password": "first password"}
        browser.post("/login", json=name).raise_for_status()
        proof = {"password": "first password"}
        secret = browser.post("/second-factor", json=proof).json()["secret"]
        code = {"code": pyotp.TOTP(secret).at(clock())}
        (first, *_) = browser.post("/second-factor/confirm", json=code).json()["codes"]
    assert login("first password") == 4
    assert login("first password", "--code", "000000") == 4
    clock.advance(60)
    assert login("first password", "--code", pyotp.TOTP(secret).at(clock())) == "bob"
    assert login("first password", "--code", first) == "bob"
    assert login("first password", "--code", first) == 4
    token = st("users", "reset", "bob", "--clear-second-factor")["token"]
    assert login("third password", "--reset-token", token) == "bob"


def test_a_share_keeps_what_is_not_given(st):
    assert st("queue", "share", "lab", "--max-jobs", 4, "--max-slots", 16)["max_jobs"] == 4
    assert st("queue", "share", "lab", "--weight", 3) == {
        "path": "lab",
        "weight": 3.0,
        "max_jobs": 4,
        "max_slots": 16,
    }
    assert st("queue", "share", "lab", "--max-jobs", "none")["max_jobs"] is None
    assert st("queue", "share", "all", "--max-slots", 0)["max_slots"] == 0
    assert st("queue", "share", "lab") == 2
    assert st("queue", "share", "lab", "--remove", "--weight", 2) == 2
    assert st("queue", "share", "lab", "--max-jobs", "some") == 2
    for weight in ("nan", "inf", "0", "-1", "1e7"):
        assert st("queue", "share", "lab", "--weight", weight) == 2
    assert st("queue", "share", "lab", "--max-slots", 10**10) == 2
    st("queue", "share", "lab", "--remove")
    assert st("queue", "share", "lab", "--weight", 2)["max_slots"] is None


def test_the_audit_log_tells_what_was_done(st):
    st("queue", "share", "lab", "--weight", 3)
    (entry,) = st("audit", "--action", "queue.*", "--since", "9000d")["items"]
    assert (entry["actor"], entry["target"]) == ("user:ada", "lab")
    assert len(st("audit", "--limit", 2)["items"]) == 2
    assert st("audit", "--since", "yesterday") == 2


def test_secrets_are_set_listed_and_deleted(st, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_from_standard_input\n"))
    assert st("secrets", "set", "hub")["shared"] is False
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN-----\nabcdefgh\n")
    assert st("secrets", "set", "pem", "--from-file", key, "--shared")["shared"] is True
    listed = st("secrets")["items"]
    assert [(item["name"], item["changed_by"]) for item in listed] == [
        ("hub", "ada"),
        ("pem", "ada"),
    ]
    assert "hf_from" not in json.dumps(listed)
    monkeypatch.setattr("sys.stdin", io.StringIO("short"))
    assert st("secrets", "set", "hub") == 2
    assert st("secrets", "delete", "hub") == {"deleted": "hub"}
    assert st("secrets", "delete", "hub") == 5
    assert st("secrets", "delete", "pem", "--shared") == {"deleted": "pem"}


def test_every_route_of_the_fake_exists_in_the_application(settings, fake_app):
    def routes(app):
        found = set()
        for path, methods in app.openapi()["paths"].items():
            found |= {(method, re.sub(r"{\w+}", "{}", path)) for method in methods}
        return found

    real = create_app(settings, dispatch=False)
    real.state.platform.db.close()
    fake = routes(fake_app)
    assert len(fake) > 25
    assert fake - routes(real) == set()


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: digits\nnoop: {seconds: 0}\n")
    return path


def test_a_job_is_steered_explained_and_tried_again(st, job_file, clock):
    job_id = st("submit", job_file)["id"]
    found = st("explain", job_id)
    assert (found["job_id"], found["reason"]["code"], found["place"]) == (
        job_id,
        "no_workers",
        None,
    )
    assert st("priority", job_id, "high")["priority"] == "high"
    assert st("priority", job_id, "--override", 50)["id"] == job_id
    clock.advance(6)  # who does not schedule has a picture that is some seconds old
    assert st("explain", "latest")["level"] == {"asked": 20, "override": 50, "reached": 50}
    assert st("retry", job_id) == 6  # a conflict: it waits
    assert st("cancel", job_id)["state"] == "cancelled"
    assert st("retry", job_id)["state"] == "queued"
    assert st("show", job_id)["attempt_list"] == []


def test_a_sweep_is_an_array(st, job_file):
    made = st("sweep", job_file, "--set-grid", "noop.seconds=0,1,2", "--max-running", 1)
    assert (made["size"], made["max_running"]) == (3, 1)
    (listed,) = st("arrays")["items"]
    assert listed["id"] == made["id"]
    assert st("arrays", made["id"])["counts"] == {"queued": 3}
    assert st("arrays", made["id"], "--no-max-running")["max_running"] is None
    assert st("cancel", "--array", made["id"])["counts"] == {"cancelled": 3}


def test_the_queue_and_its_rules_are_shown_and_changed(st, job_file):
    st("submit", job_file)
    found = st("queue")
    assert (found["waiting"], found["slots"]) == (1, 0)
    assert st("queue", "policy")["ageing_interval"] == 3600
    assert st("queue", "policy", "--set", "ageing_interval=60")["ageing_interval"] == 60
    assert st("queue", "policy")["ageing_interval"] == 60
    for wrong in ("ageing_interval=nan", "horizon=inf", "max_preemptions=1e400", "horizon=soon"):
        assert st("queue", "policy", "--set", wrong) == 2


def test_an_override_is_not_told_as_waiting(st, job_file, clock, capsys):
    job_id = st("submit", job_file)["id"]
    st("priority", job_id, "--override", 30)
    clock.advance(6)
    assert run(["explain", job_id]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "level 10, overridden with 30" in said
    clock.advance(3600)
    assert run(["explain", job_id]) == 0
    assert "level 10, overridden with 30, raised to 40 by waiting" in capsys.readouterr().out
    st("cancel", job_id)
    assert run(["explain", job_id]) == 0
    assert "cannot be foretold" not in capsys.readouterr().out


def test_where_the_forecast_ends_is_told_in_words(st, job_file, monkeypatch, capsys):
    monkeypatch.setattr("st_controller.services.live_queue.REPLAY_SECONDS", 0.0)
    job_id = st("submit", job_file)["id"]
    assert run(["explain", job_id]) == 0
    said = capsys.readouterr().out
    assert "it starts later than " in said
    assert "cannot be foretold" not in said


@pytest.fixture
def fleet(controller):
    """Names of workers that have joined; two of them share one."""
    url, key = controller
    names = ["one", "two", "two"]
    headers = {"Authorization": f"Bearer {key}"}
    token = httpx.post(
        f"{url}/v1/join-tokens", json={"uses": 3}, headers=headers, timeout=60
    ).json()["token"]
    slot = {"index": 0, "accelerator": "cpu", "memory_gb": 8}
    inventory = {"hostname": "h", "slots": [slot], "cpus": 2, "memory_gb": 8, "disk_free_gb": 1}
    for name in names:
        body = {"name": name, "agent_version": "1", "inventory": {**inventory, "platform": "l"}}
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.post(
            f"{url}/v1/worker/register", json=body, headers=bearer, timeout=60
        ).is_success
    return names


def test_workers_are_drained_activated_and_retired_by_name_or_id(st, fleet):
    ids = [worker["id"] for worker in st("workers")["items"]]
    (drained,) = st("workers", "drain", "one")["items"]
    assert (drained["id"], drained["desired"]) == (ids[0], "draining")
    (active,) = st("workers", "activate", ids[0])["items"]
    assert active["desired"] == "active"
    assert [worker["desired"] for worker in st("workers", "drain", *ids)["items"]] == [
        "draining"
    ] * 3
    retired = st("workers", "retire", "--yes", "one", ids[0], ids[1])["items"]
    assert [worker["id"] for worker in retired] == ids[:2]
    assert [worker["id"] for worker in st("workers")["items"]] == [ids[2]]


def test_workers_are_cordoned_labelled_and_deleted(st, fleet):
    (cordoned,) = st("workers", "cordon", "one", "--why", "disks")["items"]
    assert (cordoned["desired"], "(disks)" in cordoned["reason"]["message"]) == ("cordoned", True)
    (active,) = st("workers", "uncordon", "one")["items"]
    assert active["reason"] is None
    (drained,) = st("workers", "drain", "one", "--now")["items"]
    assert drained["reason"]["code"] == "drained"
    assert st("workers", "drain", "one", "--now", "--grace", "5m") == 2
    (labelled,) = st("workers", "label", "one", "pool=a", "rack=7")["items"]
    assert labelled["set_labels"] == {"pool": "a", "rack": "7"}
    (labelled,) = st("workers", "label", "one", "rack-", "pool=b")["items"]
    assert labelled["labels"] == {"pool": "b"}
    assert st("workers", "label", "one", "pool") == 2
    assert st("workers", "label", "one", "rack-") == 6
    assert st("workers", "rotate", "one")["items"][0]["rotation_ordered"]
    assert st("workers", "gc", "one")["items"][0]["id"] == labelled["id"]
    assert st("workers", "gc", "--all") == {"workers": 3}
    (revoked,) = st("workers", "revoke", "one", "--yes")["items"]
    assert revoked["reason"]["code"] == "revoked"
    assert st("workers", "delete", "one", "--yes") == {"deleted": [labelled["id"]]}
    assert len(st("workers", "--retired")["items"]) == 2


def test_join_tokens_are_listed_and_revoked(st):
    made = st("join-token", "create", "--provider", "aws", "--label", "region=eu")
    (listed,) = st("join-token", "list")["items"]
    assert (listed["id"], listed["provider"], "token" in listed) == (made["id"], "aws", False)
    assert st("join-token", "revoke", made["id"]) == {"revoked": [made["id"]]}
    assert st("join-token", "list") == {"items": []}
    assert st("join-token", "create", "--provider", "No Such") == 2


def test_an_order_to_nobody_or_to_several_reaches_none(st, fleet):
    assert st("workers", "drain", "one", "nobody") == 5
    assert st("workers", "retire", "--yes", "two") == 5
    assert {worker["desired"] for worker in st("workers")["items"]} == {"active"}
    assert st("workers", "drain") == 2


def test_jobs_are_checked_approved_and_rejected(st, controller, tmp_path):
    url, key = controller
    headers = {"Authorization": f"Bearer {key}"}

    def make(path, body):
        reply = httpx.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=60)
        assert reply.status_code == 201, reply.text

    job = tmp_path / "job.yaml"
    job.write_text("name: n\nnoop: {}\n")
    assert st("can-i", "submit", job)["verdict"] == "yes"
    ask = {"name": "ask", "condition": "first_job"}
    make("approval-rules", ask)
    assert st("can-i", "submit", job)["verdict"] == "yes"  # an admin may submit without asking
    make("resource-rules", {"resource": "family", "pattern": "noop", "effect": "deny"})
    assert st("can-i", "submit", job) == 4
    assert st("approvals")["items"] == []
    assert st("approve", "apr_none") == 1
    assert st("reject", "apr_none", "--reason", "no") == 1


def test_quotas_and_prices_are_set_shown_and_removed(st, capsys):
    price = st("prices", "set", "cpu", "2.5")
    assert (price["amount"], price["provider"]) == ("2.5", "*")
    made = st("quota", "set", "default/default", "cost_monthly", "40.25", "--then", "warn")
    (seen,) = st("quota", "--path", "default/default")["quotas"]
    assert (seen["amount"], seen["left"], seen["action"]) == ("40.25", "40.25", "warn")
    assert run(["quota"]) == 0
    told = capsys.readouterr().out
    assert "default/default/ada, days and months of UTC" in told
    assert "cost_monthly  40.25  0     0     40.25" in told
    assert st("quota", "set", "default", "cost_monthly", "much") != 0
    each = st("quota", "set", "default", "running_jobs", "3", "--role", "researcher")
    assert (each["path"], each["role"]) == ("default", "researcher")
    assert run(["quota", "list"]) == 0
    assert "each researcher of default" in capsys.readouterr().out
    assert st("quota", "remove", each["id"]) == {"removed": each["id"]}
    assert st("quota", "remove", made["id"]) == {"removed": made["id"]}
    assert st("prices", "remove", price["id"]) == {"removed": price["id"]}
    assert st("quota", "list") == st("prices") == {"items": []}


def test_tenants_and_people_are_managed(st, monkeypatch):
    assert st("orgs", "create", "acme", "--time-zone", "Europe/Berlin")["teams"] == 1
    assert st("orgs", "set", "acme", "--name", "Acme")["name"] == "Acme"
    assert [org["slug"] for org in st("orgs")["items"]] == ["acme", "default"]
    assert st("teams", "create", "acme/vision")["members"] == 0
    assert st("teams", "rename", "acme/vision", "Eyes")["name"] == "Eyes"
    made = st("users", "add", "ann", "--org", "acme", "--team", "vision", "--no-password")
    assert (made["org"], made["teams"]) == ("acme", ["vision"])
    st("teams", "add", "acme/default", "ann")
    assert [each["username"] for each in st("teams", "members", "acme/default")["items"]] == ["ann"]
    st("teams", "remove", "acme/default", "ann")
    assert st("users", "set", "ann", "--role", "lead")["role"] == "lead"
    assert st("users", "grant", "ann", "job.cancel.all")["allowed"] == ["job.cancel.all"]
    assert st("users", "deny", "ann", "job.submit")["denied"] == ["job.submit"]
    assert st("users", "ungrant", "ann", "job.submit")["denied"] == []
    role = st("roles", "create", "director", "--reach", "org", "--rank", 80, "--like", "admin")
    assert "admin.users" in role["permissions"]
    assert "admin.workers" not in role["permissions"]
    assert st("roles", "create", "x", "--like", "nobody") == 2
    assert st("users", "set", "ann", "--role", "director")["reach"] == "org"
    assert st("users", "disable", "ann")["disabled"]
    assert not st("users", "enable", "ann")["disabled"]
    assert st("orgs", "add", "default", "ann")["org"] == "default"
    assert st("users", "--org", "acme")["items"] == []
    assert st("teams", "archive", "acme/vision")["archived"]
    assert st("teams", "archive", "vision") == 2
    assert st("orgs", "disable", "acme")["disabled"]
    assert not st("orgs", "enable", "acme")["disabled"]
    (key, *_) = st("users", "keys", "ada")["items"]
    assert st("roles", "delete", "director") == 6  # ann has it
    assert st("users", "revoke-key", "ada", key["id"])["revoked"] == key["id"]
    assert st("orgs") == 4


def test_rules_are_made_listed_put_in_place_and_removed(st, capsys):
    note = ("--role", "researcher", "--note", "ask Eve")
    made = st("rules", "deny", "accelerator", "b200*", *note)
    assert (made["subject_kind"], made["subject"], made["effect"]) == ("role", "researcher", "deny")
    other = st(
        "rules", "allow", "family", "flux*", "--team", "default/default", "--instead", made["id"]
    )
    assert (other["id"], other["org"], other["effect"]) == (made["id"], "default", "allow")
    assert run(["rules"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["RULE", "EFFECT", "RESOURCE", "LIKE", "FOR", "NOTE"]
    assert told[1].split()[1:] == ["allow", "family", "flux*", "team", "default/default"]
    assert st("rules", "deny", "family", "x", "--role", "lead", "--user", "ada") == 2
    assert st("rules", "deny", "accelerator", "a|b") == 2
    assert st("rules", "deny", "family", "x", "--user", "nobody") == 2
    assert st("rules", "remove", made["id"]) == {"removed": made["id"]}
    assert st("rules", "remove", made["id"]) == 5


def test_approval_rules_are_made_changed_switched_and_removed(st, capsys):
    made = st("approval-rules", "add", "dear", "cost_over", "12.50", "--exempt-role", "admin")
    assert (made["amount"], made["approver"], made["exempt_roles"]) == (
        12_500_000,
        "lead",
        ["admin"],
    )
    rule = made["id"]
    changed = st("approval-rules", "set", rule, "--quorum", 2, "--expires", "2d", "--value", 20)
    assert (changed["amount"], changed["quorum"], changed["expires_after"]) == (2e7, 2, 172_800)
    assert changed["exempt_roles"] == ["admin"]
    assert not st("approval-rules", "disable", rule)["enabled"]
    assert run(["approval-rules"]) == 0
    told = capsys.readouterr().out.splitlines()[1]
    assert re.sub(" +", " ", told).endswith("dear costs over 20 all 2 of lead 2d admin disabled")
    assert st("approval-rules", "enable", rule)["enabled"]
    assert st("approval-rules", "add", "x", "family") == 2
    assert st("approval-rules", "add", "x", "cost_over", "much") == 2
    assert st("approval-rules", "add", "x", "slot_hours_over", "1.5") == 2
    assert st("approval-rules", "set", rule, "--expires", "soon") == 2
    assert st("approval-rules", "set", "apl_none") == 5
    assert st("approval-rules", "remove", rule) == {"removed": rule}
    assert st("approval-rules")["items"] == []


def test_keys_of_oneself_and_of_accounts_are_made_and_ended(st, capsys):
    made = st(
        "keys",
        "create",
        "--name",
        "ci",
        "--scope",
        "job.submit",
        "--from",
        "10.0.0.0/8",
        "--days",
        3,
    )
    assert (made["scopes"], made["addresses"]) == (["job.submit"], ["10.0.0.0/8"])
    assert run(["keys"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if " ci " in row]
    assert line.split()[0] == made["id"]
    assert {"job.submit", "10.0.0.0/8", "never"} <= set(line.split())
    assert st("keys", "create", "--scope", "job.fly") == 2
    assert st("keys", "create", "--days", 0) == 2
    assert st("keys", "revoke", made["id"]) == {"revoked": made["id"]}
    assert st("keys", "revoke", made["id"]) == 5
    st("users", "add", "robot", "--no-password")
    key = st("users", "make-key", "robot", "--name", "nightly")
    assert [each["id"] for each in st("users", "keys", "robot")["items"]] == [key["id"]]
    assert run(["users", "reset", "robot"]) == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    assert "for robot, until " in told.err
    assert st("users", "sign-out", "robot") == {"count": 0}


def test_a_role_is_shown_and_changed(st):
    st("roles", "create", "viewers", "--allow", "job.view.own", "--rank", 5)
    now = st("roles", "set", "viewers", "--allow", "queue.view", "--reach", "team")
    assert (now["permissions"], now["reach"], now["rank"]) == (
        ["job.view.own", "queue.view"],
        "team",
        5,
    )
    now = st("roles", "set", "viewers", "--without", "queue.view", "--rank", 6)
    assert st("roles", "show", "viewers") == now
    assert (now["permissions"], now["rank"]) == (["job.view.own"], 6)
    assert st("roles", "set", "nobody", "--rank", 1) == 5


def test_a_job_begins_from_a_saved_config(st, job_file, tmp_path):
    part = tmp_path / "part.yaml"
    part.write_text("priority: low\nnoop: {seconds: 1}\n")
    assert st("configs", "save", "base", part)["version"] == 1
    assert st("configs", "save", "base", part)["version"] == 2
    assert [each["name"] for each in st("configs")["items"]] == ["base"]
    job_file.write_text("name: digits\nconfig: base\n")
    made = st("submit", job_file)
    assert (made["config"], made["priority"]) == ("base", "low")
    st("configs", "delete", "base")
    assert st("configs", "show", "base") == 5
