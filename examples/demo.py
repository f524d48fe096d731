"""The whole system on one machine: from a job file to a trained model, in a few minutes.

python examples/demo.py                  the demo, as `make demo` runs it
python examples/demo.py --keep-running   leave controller and worker up afterwards
python examples/demo.py --steps 40       a quick try, too short to learn to draw
"""

import argparse
import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from demo_processes import DemoError, still_running
from demo_results import check_digits, fetch_results, load_again, verify_checkpoints
from demo_run import COMMANDS, EXAMPLES, Demo, run, st

from st_client import Client
from st_client.commands.metrics import metric_series
from st_client.credentials import Credentials
from st_client.errors import ClientError
from st_client.sparkline import sparkline
from st_shared.protocol.states import WorkerState

ADMIN, WORKER, DATASET = "admin", "demo-worker", "digits"


def start_controller(demo: Demo) -> None:
    """Start an embedded controller and wait until it is ready."""
    demo.step("start the controller: SQLite, Valkey and a folder as object store")
    refuse_company(demo)
    address, port_file = demo.controller / "controller.json", demo.data / "port"
    address.unlink(missing_ok=True)
    command: list[str | Path] = [COMMANDS / "st-controller", "serve", "--data", demo.controller]
    command += ["--port", str(former_port(port_file))]
    child = demo.start("st-controller", command, demo.data / "controller.log")
    child.wait_until(address.exists, 60, "starting the controller")
    demo.url = json.loads(address.read_text(encoding="utf-8"))["url"]
    child.wait_until(lambda: answers(f"{demo.url}/readyz"), 30, "getting ready")
    port_file.write_text(str(urlsplit(demo.url).port), encoding="ascii")
    print(f"ready at {demo.url} (pid {child.pid})")


def refuse_company(demo: Demo) -> None:
    """``DemoError`` while processes of an earlier demo still run in this folder."""
    if running := still_running(demo.processes):
        names = ", ".join(f"{name} (pid {pid})" for name, pid in running)
        pids = " ".join(str(pid) for _, pid in reversed(running))
        raise DemoError(
            f"an earlier demo still runs in this folder: {names}\n"
            f"stop it with `kill {pids}`, or give another folder with --data"
        )


def former_port(path: Path) -> int:
    """The port of the demo before, if it is free, so that bookmarks stay good; else 0: any."""
    try:
        port = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return port
    return 0


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310  (our own loopback URL)
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def sign_in(demo: Demo) -> None:
    """Become the admin: the first time through the setup token, then with the stored key."""
    demo.step("sign in as the admin")
    token_file = demo.controller / "setup-token"
    stored = Credentials(demo.environment)
    if token_file.exists():
        password = secrets.token_urlsafe(18)
        write_secret(demo.password_file, password)
        token = token_file.read_text(encoding="utf-8").strip()
        options = ["--setup-token", token, "--username", ADMIN, "--password-stdin"]
        st(demo, "login", demo.url, *options, stdin=password)
    elif stored.path.exists():
        st(demo, "login", demo.url, "--api-key-stdin", stdin=stored.current().api_key)
    else:
        password = demo.password_file.read_text(encoding="utf-8").strip()
        options = ["--username", ADMIN, "--password-stdin"]
        st(demo, "login", demo.url, *options, stdin=password)
    print(f"user {ADMIN}, password in {demo.password_file}")


def start_worker(demo: Demo) -> None:
    """Start a worker with a fresh join token and wait until the controller sees it."""
    demo.step("join a worker")
    cancel_jobs(demo)
    token = demo.data / "join-token"
    with demo.client() as client:
        write_secret(token, client.create_join_token(uses=1).token)
        command: list[str | Path] = [COMMANDS / "st-worker", "join", demo.url]
        command += ["--token-file", token, "--state-dir", demo.data / "worker", "--name", WORKER]
        since = datetime.now(UTC)
        child = demo.start("st-worker", command, demo.data / "worker.log")
        try:
            child.wait_until(lambda: is_online(client, since), 60, "joining the worker")
        finally:
            token.unlink()
    print(f"{WORKER} is online (pid {child.pid})")


def is_online(client: Client, since: datetime) -> bool:
    """Whether the demo's worker takes jobs, and was heard of after ``since``: not a former one."""
    return any(
        worker.name == WORKER
        and worker.state is WorkerState.ONLINE
        and worker.last_heartbeat_at is not None
        and worker.last_heartbeat_at >= since
        for worker in client.workers()
    )


def cancel_jobs(demo: Demo) -> None:
    """Cancel what an interrupted demo has left: it would train again before ours."""
    with demo.client() as client:
        for job in [job for job in client.jobs() if not job.state.is_final]:
            if not job.cancel_requested:
                client.cancel(job.id)
                print(f"cancelled {job.id} ({job.name})")


def register_digits(demo: Demo) -> None:
    """Export the scans that scikit-learn ships, and register them as a dataset."""
    demo.step("export 1,797 scans of handwritten digits and register them as a dataset")
    folder = demo.data / "digits"
    run(demo, sys.executable, EXAMPLES / "digits.py", "export", folder)
    st(demo, "datasets", "push", DATASET, folder)


def train(demo: Demo) -> None:
    """Submit the example job and follow it to its end in this terminal."""
    demo.step("train a small diffusion transformer from scratch")
    with demo.client() as client:
        before = {job.id for job in client.jobs()}
        follow(demo)
        made = [job for job in client.jobs() if job.id not in before]
        if len(made) != 1:
            raise DemoError(f"one job was submitted, but {len(made)} came to be")
        demo.job_id = made[0].id
        losses = metric_series(list(client.metrics(demo.job_id))).get("loss", [])
    if not losses or not all(map(math.isfinite, losses)):
        raise DemoError(f"the job measured no finite loss: {losses[:5]}")
    demo.summary.append(("final state", f"{made[0].state.value} ({demo.job_id})"))
    demo.summary.append(("loss", f"{losses[0]:.3f} -> {losses[-1]:.3f}  {sparkline(losses)}"))


def changes(demo: Demo) -> list[str]:
    """Options of ``st submit`` for a run of other length."""
    if demo.steps is None:
        return []
    half = max(1, demo.steps // 2)
    wanted = {
        "steps": demo.steps,
        "schedule.warmup_steps": demo.steps // 10,
        "validation.every": half,
        "checkpoint.every": half,
        "log_every": max(1, demo.steps // 20),
    }
    return [part for key, value in wanted.items() for part in ("--set", f"training.{key}={value}")]


def follow(demo: Demo) -> None:
    """Run ``st submit --follow`` for as long as controller and worker live."""
    command: list[str | Path] = [COMMANDS / "st", "submit", EXAMPLES / "digits.yaml", "--follow"]
    with subprocess.Popen([*command, *changes(demo)], env=demo.environment) as following:
        try:
            while following.poll() is None:
                for child in demo.children:
                    child.ensure_running()
                time.sleep(0.2)
        finally:
            end(following)
    if following.returncode == 130:
        raise KeyboardInterrupt
    if following.returncode:
        worker = demo.children[-1]
        raise DemoError(f"the training did not succeed; the worker's log ends:\n{worker.tail()}")


def end(following: subprocess.Popen[bytes]) -> None:
    """Wait for ``st``, which hears a Ctrl-C in the terminal by itself; else interrupt it."""
    try:
        following.wait(2)
    except subprocess.TimeoutExpired:
        following.send_signal(signal.SIGINT)
        following.wait()


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")


def run_all(demo: Demo) -> None:
    """Every step, in order; raises at the first that fails."""
    start_controller(demo)
    sign_in(demo)
    start_worker(demo)
    register_digits(demo)
    train(demo)
    weights = fetch_results(demo)
    verify_checkpoints(demo)
    load_again(demo, weights)
    check_digits(demo, weights)


def print_summary(demo: Demo, keep_running: bool) -> None:
    """What came of it, and what to do next."""
    spent = time.monotonic() - demo.began
    dashboard = demo.url if keep_running else f"{demo.url} (while it runs: --keep-running)"
    rows = [
        *demo.summary,
        ("dashboard", f"{dashboard}\n  user {ADMIN}, password in {demo.password_file}"),
        ("data", str(demo.data)),
        ("time", f"{spent // 60:.0f} min {spent % 60:.0f} s"),
    ]
    print("\n" + "=" * 72)
    for name, text in rows:
        print(f"{name + ':':<18}{text.replace(chr(10), chr(10) + ' ' * 18)}")
    print("\nnext:")
    if keep_running:
        print(f"  export ST_CONFIG_HOME={demo.data / 'client'}")
        print(f"  {COMMANDS / 'st'} jobs          # and: submit, show latest, logs latest, workers")
        pids = " ".join(str(child.pid) for child in reversed(demo.children))
        print(f"  kill {pids}          # stops worker and controller")
    else:
        print("  make demo                                  # again, in the same folder")
        print(f"  {sys.executable} {Path(__file__)} --keep-running   # stays up to be used")
    print(f"  {COMMANDS / 'st-train'} run {EXAMPLES / 'digits.yaml'} \\")
    print(f"      --dataset digits={demo.data / 'digits'}   # without any controller")


def stop_children(demo: Demo, *, interrupted: bool) -> None:
    """End all that was started, the worker first; a second Ctrl-C cannot prevent it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if interrupted and demo.url:
        try:
            cancel_jobs(demo)
        except ClientError as error:
            print(f"the job could not be cancelled: {error}", file=sys.stderr)
    for child in reversed(demo.children):
        print(child.stop(), flush=True)


def main() -> int:
    """Run the demo; 0 only if all of it is true, 130 after Ctrl-C."""
    options = parse()
    signal.signal(signal.SIGINT, interrupt)  # also where a background shell had it ignored
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    demo = Demo(options.data.resolve(), options.steps)
    demo.data.mkdir(parents=True, exist_ok=True)
    print(f"data of the demo: {demo.data}")
    code = 1
    try:
        run_all(demo)
        code = 0
    except KeyboardInterrupt:
        print("\ninterrupted; stopping what was started")
        code = 130
    except (DemoError, ClientError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
    finally:
        if code or not options.keep_running:
            stop_children(demo, interrupted=bool(code))
    if code == 0:
        print_summary(demo, options.keep_running)
    return code


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Treat being asked to end like Ctrl-C."""
    raise KeyboardInterrupt


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".st/demo"), help="folder of all data")
    parser.add_argument("--keep-running", action="store_true", help="leave the processes up")
    parser.add_argument("--steps", type=int, help="training steps, for a quick try")
    options = parser.parse_args()
    if options.steps is not None and options.steps < 1:
        parser.error("--steps is at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
