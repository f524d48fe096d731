"""The whole system on one machine: from a job file to a trained model, in a few minutes.

python examples/demo.py                  the demo, as `make demo` runs it
python examples/demo.py --keep-running   leave controller and worker up afterwards
python examples/demo.py --steps 40       a quick try, too short to learn to draw
"""

import argparse
import hashlib
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
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from demo_processes import Child, DemoError, is_alive

from st_client import Client
from st_client.commands.metrics import metric_series
from st_client.credentials import Credentials
from st_client.errors import ClientError
from st_client.sparkline import sparkline
from st_shared.protocol.journal import CheckpointManifest
from st_shared.protocol.states import WorkerState

EXAMPLES = Path(__file__).resolve().parent
COMMANDS = Path(sys.executable).parent
"""Where the venv keeps its commands; the interpreter itself may be a link to elsewhere."""

ADMIN, WORKER, DATASET = "admin", "demo-worker", "digits"
STEPS_IN_ALL = 9
DIGITS_DRAWN = 100


@dataclass
class Demo:
    """One run: where its files lie, what it has started, what it found."""

    data: Path
    steps: int | None
    began: float = field(default_factory=time.monotonic)
    children: list[Child] = field(default_factory=list)
    url: str = ""
    job_id: str = ""
    summary: list[tuple[str, str]] = field(default_factory=list)
    _number: Any = field(default_factory=lambda: count(1))

    @property
    def controller(self) -> Path:
        """Data of the controller."""
        return self.data / "controller"

    @property
    def password_file(self) -> Path:
        """Holds the admin's password."""
        return self.data / "admin-password"

    @property
    def results(self) -> Path:
        """Files of this run's job."""
        return self.data / "results" / self.job_id

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every command: keys of the demo's own, none of the person's."""
        mine = {k: v for k, v in os.environ.items() if k not in {"ST_URL", "ST_API_KEY"}}
        return mine | {"ST_CONFIG_HOME": str(self.data / "client")}

    def step(self, title: str) -> None:
        """Announce the next step."""
        spent = time.monotonic() - self.began
        print(f"\n[{next(self._number)}/{STEPS_IN_ALL}] {title}  ({spent:.0f} s)", flush=True)

    def client(self) -> Client:
        """A client signed in as the admin."""
        credential = Credentials(self.environment).current()
        return Client(self.url, credential.api_key)


def start_controller(demo: Demo) -> None:
    """Start an embedded controller and wait until it is ready."""
    demo.step("start the controller: SQLite, Valkey and a folder as object store")
    address = demo.controller / "controller.json"
    port = former_port(address)
    address.unlink(missing_ok=True)
    command = [COMMANDS / "st-controller", "serve", "--data", demo.controller, "--port", str(port)]
    child = Child("st-controller", command, demo.data / "controller.log", demo.environment)
    demo.children.append(child)
    child.wait_until(address.exists, 60, "starting the controller")
    demo.url = json.loads(address.read_text(encoding="utf-8"))["url"]
    child.wait_until(lambda: answers(f"{demo.url}/readyz"), 30, "getting ready")
    print(f"ready at {demo.url} (pid {child.pid})")


def former_port(address: Path) -> int:
    """The port of the demo before, if it is free, so that bookmarks stay good; else 0: any.

    Raises:
        DemoError: the controller of an earlier demo still runs in this folder.
    """
    try:
        former = json.loads(address.read_text(encoding="utf-8"))
        url, pid = str(former["url"]), int(former["pid"])
    except (FileNotFoundError, ValueError, KeyError):
        return 0
    if is_alive(pid) and answers(f"{url}/healthz"):
        raise DemoError(
            f"a controller of an earlier demo still runs in this folder: {url} (pid {pid})\n"
            f"stop it with `kill {pid}`, or give another folder with --data"
        )
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", urlsplit(url).port or 0))
        return int(probe.getsockname()[1])
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
        command = [COMMANDS / "st-worker", "join", demo.url, "--token-file", token]
        command += ["--state-dir", demo.data / "worker", "--name", WORKER]
        child = Child("st-worker", command, demo.data / "worker.log", demo.environment)
        demo.children.append(child)
        child.wait_until(lambda: is_online(client), 60, "joining the worker")
    token.unlink()
    print(f"{WORKER} is online (pid {child.pid})")


def is_online(client: Client) -> bool:
    """Whether the demo's worker is one that takes jobs."""
    return any(
        worker.name == WORKER and worker.state is WorkerState.ONLINE for worker in client.workers()
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
        code = subprocess.call(
            [COMMANDS / "st", "submit", EXAMPLES / "digits.yaml", "--follow", *changes(demo)],
            env=demo.environment,
        )
        if code == 130:
            raise KeyboardInterrupt
        made = [job for job in client.jobs() if job.id not in before]
        if code or len(made) != 1:
            raise DemoError(f"the training did not succeed; the worker says:\n{log_of(demo)}")
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


def log_of(demo: Demo) -> str:
    """The end of the worker's log."""
    return demo.children[-1].tail()


def fetch_results(demo: Demo) -> Path:
    """Download what the job stored, verified; gives the weights."""
    demo.step("fetch samples, checkpoints and weights")
    st(demo, "artifacts", demo.job_id, "--download", demo.results)
    output = demo.results / "output"
    for title, name in (("loss curve", "loss_curve.png"), ("sample grid", "sample_grid.png")):
        demo.summary.append((title, str(picture(output / name))))
    weights = output / "weights.safetensors"
    demo.summary.append(("weights", f"{weights}\n  SHA-256 {sha256_of(weights)}"))
    return weights


def picture(path: Path) -> Path:
    """``path``, if a PNG lies there."""
    if not path.is_file() or path.read_bytes()[:8] != b"\x89PNG\r\n\x1a\n":
        raise DemoError(f"the job stored no picture {path.name}")
    return path


def verify_checkpoints(demo: Demo) -> None:
    """Compare every file of every stored checkpoint with its manifest."""
    demo.step("verify the checksums of the checkpoints")
    manifests = sorted(demo.results.glob("checkpoints/*/manifest.json"))
    if not manifests:
        raise DemoError("the job stored no checkpoint")
    verified = sum(verify_manifest(path) for path in manifests)
    print(f"{verified} files in {len(manifests)} checkpoints are as their manifests say")
    demo.summary.append(("checkpoint", f"{manifests[-1]} ({verified} files verified in all)"))


def verify_manifest(path: Path) -> int:
    """The number of files in a manifest, every one of which is present and whole."""
    manifest = CheckpointManifest.model_validate_json(path.read_bytes())
    for item in manifest.files:
        file = path.parent / item.path
        if not file.is_file() or (file.stat().st_size, sha256_of(file)) != (item.size, item.sha256):
            raise DemoError(f"{file} is missing or differs from {path}")
    return len(manifest.files)


def load_again(demo: Demo, weights: Path) -> None:
    """Load the weights into a run that only draws."""
    demo.step("load the weights again, for validation only")
    with demo.client() as client:
        spec = client.job(demo.job_id).spec
    training = spec["training"]
    training["model"] |= {"base": str(weights), "base_sha256": sha256_of(weights)}
    training |= {"steps": 0, "datasets": []}
    job, folder = demo.results / "validate.yaml", demo.results / "validate"
    job.write_text(json.dumps(spec, indent=2), encoding="utf-8")  # JSON is YAML too
    run(demo, COMMANDS / "st-train", "run", job, "--run-dir", folder)
    demo.summary.append(("drawn again", str(picture(folder / "output" / "sample_grid.png"))))


def check_digits(demo: Demo, weights: Path) -> None:
    """Have a classifier read freshly drawn digits; too few as asked is a failure."""
    demo.step(f"draw {DIGITS_DRAWN} digits and have a classifier read them")
    if demo.steps is not None:
        print(f"skipped: {demo.steps} steps may be too few to learn (--steps)")
        demo.summary.append(("captions matched", "not checked, because of --steps"))
        return
    command = [sys.executable, EXAMPLES / "digits.py", "check", weights, "--json"]
    done = subprocess.run(
        [*command, "--count", str(DIGITS_DRAWN)],
        env=demo.environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    found = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        raise DemoError(f"too few digits match their caption: {found}")
    print(f"{found['matched']} of {found['drawn']} match their caption")
    demo.summary.append(("captions matched", f"{found['share']:.0%} of {found['drawn']}"))


def st(demo: Demo, *arguments: str | Path, stdin: str | None = None) -> None:
    """Run ``st``; ``DemoError`` when it fails."""
    run(demo, COMMANDS / "st", *arguments, stdin=stdin)


def run(demo: Demo, *command: str | Path, stdin: str | None = None) -> None:
    """Run a command in this terminal; ``DemoError`` when it fails."""
    sys.stdout.flush()
    done = subprocess.run(command, env=demo.environment, input=stdin, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        name = " ".join([Path(command[0]).name, *map(str, command[1:3])])
        raise DemoError(f"`{name} ...` failed with code {done.returncode}")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
