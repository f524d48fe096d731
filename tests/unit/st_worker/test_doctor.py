"""``st-worker doctor`` against real servers, each of which has one thing wrong with it."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import accelerator_answers as answers
import httpx
import pytest
import uvicorn
from click.testing import CliRunner
from middle import certificate, proxy, serving

from st_controller.app import create_app
from st_shared import logging
from st_shared.clock import utc_now
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.registry import Found, find_devices
from st_worker.cli import st_worker
from st_worker.credential import Credential
from st_worker.doctor import controller as way
from st_worker.doctor import host
from st_worker.doctor.check import exit_code
from st_worker.folder import StateFolder


@pytest.fixture(autouse=True)
def log_again():
    """The doctor logs errors alone, which must not outlast it."""
    yield
    logging.configure(level="warning", format="json")


@contextmanager
def controller(settings, clock=utc_now):
    """URL and API key of a controller that places no jobs."""
    app = create_app(settings, clock=clock, dispatch=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        ready, startup = threading.Event(), server.startup

        async def started(sockets=None):
            await startup(sockets)
            ready.set()

        server.startup = started
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(120)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        token = {"token": app.state.setup_token, "username": "ada", "password": "correct horse"}
        try:
            yield url, httpx.post(f"{url}/v1/auth/setup", json=token, timeout=60).json()["key"]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def joined(settings, tmp_path):
    """URL of a controller, and the state folder of a worker that has joined it."""
    with controller(settings) as (url, key):
        state = StateFolder(tmp_path / "state")
        state.create()
        admin = {"Authorization": f"Bearer {key}"}
        made = httpx.post(f"{url}/v1/join-tokens", json={}, headers=admin, timeout=60)
        token = made.json()["token"]
        inventory = {
            "hostname": "host",
            "slots": [{"index": 0, "accelerator": "cpu", "memory_gb": 1}],
            "cpus": 1,
            "memory_gb": 1,
            "disk_free_gb": 1,
            "platform": "Linux",
        }
        described = {"name": "w", "agent_version": "1", "inventory": inventory}
        holder = {"Authorization": f"Bearer {token}"}
        register = f"{url}/v1/worker/register"
        told = httpx.post(register, json=described, headers=holder, timeout=60).json()
        Credential(
            controller=url, worker_id=told["worker_id"], name="w", secret=told["credential"]
        ).save(state)
        yield url, state


def levels(findings):
    return {(finding.check, finding.level) for finding in findings}


def only(findings, check):
    (found,) = (finding for finding in findings if finding.check == check)
    return found


def run_doctor(*arguments):
    """Exit code and the checks of ``st-worker doctor --json``, by name."""
    done = CliRunner().invoke(st_worker, ["doctor", "--json", *map(str, arguments)])
    told = json.loads(done.stdout)
    assert told["ok"] is (done.exit_code == 0)
    return done.exit_code, {each["check"]: each for each in told["checks"]}


def test_a_host_that_has_joined_is_examined_whole(joined):
    url, state = joined
    code, checks = run_doctor("--state-dir", state.root)
    assert code == 0
    expected = {"reach", "stream", "clock", "credential", "storage", "folder", "privacy"}
    assert {name for name in expected if checks[name]["level"] == "ok"} == expected
    assert {"disk space", "disk speed", "python", "trainer", "accelerators"} <= set(checks)
    assert url in checks["reach"]["message"]


def test_before_joining_the_way_is_examined_without_a_credential(settings, tmp_path):
    with controller(settings) as (url, _):
        code, checks = run_doctor(url, "--state-dir", tmp_path / "new")
    assert code == 0
    assert (checks["stream"]["level"], checks["credential"]["level"]) == ("ok", "warn")
    assert "storage" not in checks
    assert not (tmp_path / "new").exists()  # it looks, and makes nothing
    _, nowhere = run_doctor("--state-dir", tmp_path / "new")
    assert nowhere["reach"]["level"] == "warn"
    assert "st-worker doctor https://" in nowhere["reach"]["mend"]


def test_findings_for_people_have_the_mend_below_them(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = CliRunner().invoke(st_worker, ["doctor", url, "--state-dir", str(tmp_path)])
    assert done.exit_code == 1
    line, mend = done.stdout.splitlines()[-2:]
    assert line.startswith("fail  reach")
    assert "cannot be reached" in line
    assert mend.strip().startswith("-> is the name right, the controller running")


def test_a_credential_that_was_revoked_is_found(joined):
    url, state = joined
    known = Credential.load(state)
    known.model_copy(update={"secret": "st_wrk_void"}).save(state)
    with way.new_http(url) as http:
        found = only(way.storage(http, Credential.load(state)), "credential")
    assert (found.level, "st join-token create" in found.mend) == ("fail", True)


def test_a_proxy_that_keeps_streams_back_is_found(joined):
    url, _ = joined
    with proxy(url, buffers=True) as address, way.new_http(address) as http:
        found = only(way.stream(http), "stream")
    assert found.level == "fail"
    assert "something keeps them back" in found.message
    assert "proxy_buffering off" in found.mend
    with proxy(url) as address, way.new_http(address) as http:
        assert levels(way.stream(http)) == {("stream", "ok"), ("clock", "ok")}


def test_clocks_that_are_apart_are_found(settings, clock):
    with controller(settings, clock) as (url, _), way.new_http(url) as http:
        far = way.stream(http, lambda: clock() + timedelta(seconds=90))
        near = way.stream(http, lambda: clock() - timedelta(seconds=5))
        apart = only(far, "clock")
        assert apart.level == "fail"
        assert apart.message == "this host is 90.0 s ahead of the controller"
        assert "timedatectl" in apart.mend
        behind = only(near, "clock")
        assert (behind.level, "behind" in behind.message) == ("warn", True)


class Healthy(BaseHTTPRequestHandler):
    """Answers as a controller does that is asked whether it lives."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def log_message(self, format, *args):
        pass


@pytest.fixture
def tls(tmp_path):
    """Runs ``reach`` against a server with a certificate of the given kind."""

    def reach(*, trusted=True, **kind):
        chain, key = certificate(tmp_path, **kind)
        context = ssl.create_default_context(cafile=chain if trusted else None)
        with serving(Healthy, (chain, key)) as address, way.new_http(address, context) as http:
            return list(way.reach(http))

    return reach


@pytest.mark.parametrize(
    ("kind", "message", "mend"),
    [
        ({"days": -1}, "has expired", "renew it"),
        ({"since": -1}, "is not valid yet", "set-ntp"),
        ({"name": "other.example"}, "not one for 127.0.0.1", "use a name that it names"),
        ({"trusted": False}, "is not trusted", "SSL_CERT_FILE"),
    ],
    ids=["expired", "not yet valid", "another name", "untrusted"],
)
def test_a_certificate_that_is_refused_is_told_with_why(tls, kind, message, mend):
    (found,) = tls(**kind)
    assert (found.check, found.level) == ("tls", "fail")
    assert message in found.message
    assert mend in found.mend


def test_a_certificate_that_is_good_or_ends_soon(tls):
    assert levels(tls()) == {("tls", "ok"), ("reach", "ok")}
    soon = only(tls(days=5), "tls")
    assert (soon.level, "5 days" in soon.message) == ("warn", True)


def test_tls_spoken_to_a_plain_port_is_told(joined):
    url, _ = joined
    with way.new_http(url.replace("http://", "https://")) as http:
        (found,) = way.reach(http)
    assert (found.check, found.level) == ("tls", "fail")
    assert "http:// for a controller without TLS" in found.mend


class Portal(Healthy):
    """Answers everything with its own page, as captive portals do."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>Please sign in to the network</h1>")


class Redirect(Healthy):
    def do_GET(self):
        self.send_response(301)
        self.send_header("Location", "https://st.example/healthz")
        self.end_headers()


@pytest.mark.parametrize(
    ("handler", "said"),
    [(Portal, "is no controller"), (Redirect, "sends on to https://st.example")],
    ids=["portal", "redirect"],
)
def test_what_answers_in_the_controllers_stead_is_told(handler, said):
    with serving(handler) as url, way.new_http(url) as http:
        (found,) = way.reach(http)
    assert (found.check, found.level) == ("reach", "fail")
    assert said in found.message


def test_a_store_that_cannot_be_reached_is_named(joined):
    url, state = joined

    class NoUploads(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers.get("content-length", 0))
            reply = httpx.post(
                url + self.path,
                content=self.rfile.read(size),
                headers={"Authorization": self.headers["authorization"]},
                timeout=60,
            )
            self.send_response(reply.status_code)
            self.end_headers()
            self.wfile.write(reply.content)

        def do_PUT(self):
            self.send_response(403)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    with serving(NoUploads) as address, way.new_http(address) as http:
        found = list(way.storage(http, Credential.load(state)))
    assert levels(found) == {("credential", "ok"), ("storage", "fail")}
    assert "refused an upload: 403" in only(found, "storage").message


# The host


@pytest.fixture
def as_nobody():
    """Without root's rights over files for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_folder_that_cannot_be_written_is_found(tmp_path, as_nobody):
    if os.geteuid() != 65534:
        pytest.skip("another user cannot be taken on without root")
    (found,) = host.folder(StateFolder(tmp_path / "state"))
    assert (found.level, "cannot be written: Permission denied" in found.message) == ("fail", True)
    assert "--state-dir" in found.mend


def test_a_folder_below_a_file_is_found(tmp_path):
    (tmp_path / "file").touch()
    (found,) = host.folder(StateFolder(tmp_path / "file" / "state"))
    assert found.level == "fail"
    assert "Not a directory" in found.message


def test_a_credential_that_others_can_read_is_found(joined):
    _, state = joined
    state.credential.chmod(0o644)
    (found,) = host.privacy(state)
    assert found.level == "fail"
    assert found.mend == f"chmod go= {state.credential}"


def test_root_is_not_told_to_take_the_folder_from_the_agents_user(joined, monkeypatch):
    _, state = joined
    if os.geteuid() == 0:
        os.chown(state.root, 65534, -1)
    uid = state.root.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = [each for each in host.privacy(state) if str(state.root) + " " in each.message]
    assert [each.level for each in found] == ["warn"]
    assert found[0].mend == f"run the doctor as that user: sudo -u '#{uid}' st-worker doctor"


@pytest.mark.parametrize(
    ("free", "level"), [(1.9, "fail"), (5, "warn"), (500, "ok")], ids=["full", "scarce", "enough"]
)
def test_disk_space(tmp_path, free, level):
    (found,) = host.disk_space(tmp_path, lambda _root: int(free * 2**30))
    assert found.level == level


def test_a_slow_disk_is_found(tmp_path):
    moments = iter([0.0, 1.0, 1.0, 1.2])
    (found,) = host.disk_speed(tmp_path, 2**20, lambda: next(moments))
    assert (found.level, found.message) == ("warn", "1 MiB/s, a line is durable after 200 ms")
    fast = iter([0.0, 0.001, 0.001, 0.002])
    (found,) = host.disk_speed(tmp_path, 2**20, lambda: next(fast))
    assert found.level == "ok"


@pytest.mark.parametrize(
    ("vendor", "torch", "level"),
    [
        ("nvidia", "2.13.0+cpu", "fail"),
        ("nvidia", "2.13.0+cu128", "ok"),
        ("nvidia", "2.13.0", "ok"),
        ("amd", "2.13.0+cu128", "fail"),
        ("amd", "2.13.0+rocm6.4", "ok"),
        ("amd", "2.13.0", "fail"),
        ("amd", "2.9.0a0+git1c57644", "ok"),
        ("cpu", "2.13.0+cpu", "ok"),
    ],
)
def test_torch_must_be_made_for_the_accelerators(vendor, torch, level):
    found = list(host.programs(vendor, lambda _name: True, lambda _name: torch))
    assert only(found, "trainer").level == level


def test_a_host_without_a_trainer_is_warned():
    found = list(host.programs("cpu", lambda name: name != "torch"))
    assert only(found, "trainer").level == "warn"
    assert "torch cannot be imported" in only(found, "trainer").message


def test_a_library_that_breaks_is_a_finding_and_nothing_else_is_printed(tmp_path):
    (tmp_path / "pynvml.py").write_text("raise OSError('wrong ELF class')")
    done = subprocess.run(
        [sys.executable, "-m", "st_worker", "doctor", "--json", "--state-dir", tmp_path / "state"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    (found,) = (c for c in json.loads(done.stdout)["checks"] if c["check"] == "accelerators")
    assert (done.returncode, found["level"]) == (1, "fail")
    assert "wrong ELF class [nvidia_probe]" in found["message"]


def test_accelerators_that_fail_or_are_lost_are_found():
    probe = NvidiaProbe.over(answers.nvml_double(2), is_here=True)
    devices = probe.devices()
    gone = NvidiaProbe.over(answers.nvml_double(2, lost={1}), is_here=True)
    found = list(host.accelerators(Found(gone, devices, [])))
    assert [finding.level for finding in found] == ["ok", "fail"]
    assert exit_code(found) == 1

    def broken():
        return NvidiaProbe.over(answers.nvml_double(init_error="version mismatch"), is_here=True)

    (warned,) = host.accelerators(find_devices(None, {"nvidia": broken}))
    assert (warned.level, "version mismatch" in warned.message) == ("fail", True)
