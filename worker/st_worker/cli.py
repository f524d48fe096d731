"""The ``st-worker`` command. Imports that cost time wait until a command needs them."""

import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Literal

import click

from st_shared import __version__
from st_worker.errors import Refused, UsageError, WorkerError

_EXIT_CODES = """\b
Exit codes:
  0  left cleanly: stopped by a signal, drained, idle, or its one job done
  1  an error; running trainers are taken over by the next agent on the same folder
  2  the command line cannot work
  3  refused by the controller: token void, credential revoked, the worker was retired, or
     another host works with a copy of its state folder
  75 told by SIGHUP to make way: start it again, and it goes on with the running trainers
"""


_MOST_GRACE_SECONDS = 366 * 86_400


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, prog_name="st-worker")
def st_worker() -> None:
    """Lend this machine to a controller: run its jobs and ship what they make."""


def main() -> None:
    """Run ``st-worker`` and end the process with its exit code."""
    try:
        st_worker(prog_name="st-worker")
    except UsageError as error:
        click.echo(f"st-worker: {error}", err=True)
        sys.exit(2)
    except Refused as error:
        click.echo(f"st-worker: refused by the controller: {error}", err=True)
        sys.exit(3)
    except WorkerError as error:
        click.echo(f"st-worker: {error}", err=True)
        sys.exit(1)


def _default_state_dir() -> Path:
    given = os.environ.get("ST_WORKER_STATE")
    return Path(given) if given else Path.home() / ".local" / "state" / "st-worker"


def _parse_labels(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    labels = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator):
            raise click.BadParameter(f"{value!r}: write KEY=VALUE, such as region=eu-west")
        labels[key] = text
    return labels


_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=_default_state_dir,
    show_default="$ST_WORKER_STATE or ~/.local/state/st-worker",
    help="Folder for credential, running attempts and cached datasets.",
)


@st_worker.command()
@click.argument("url")
@click.option("--token", help="Join token; better in a file or in ST_JOIN_TOKEN.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--name", help="Name for people.  [default: the host's name]")
@_state_dir
@click.option(
    "--slots", type=click.IntRange(1, 1024), help="Count of CPU slots, or GPUs at most to lend."
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_parse_labels)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="Here for a while: whenever it leaves, sign off and clear the state folder.",
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --ephemeral: leave after so long without a job.",
)
@click.option("--one-job", is_flag=True, help="With --ephemeral: take one job, then leave.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ST_WORKER_CACHE",
    help="Folder for datasets and checkpoints; agents of one user may share it.  "
    "[default: below the state folder]",
)
@click.option(
    "--cache-gb",
    type=click.FloatRange(min=0.001),
    envvar="ST_WORKER_CACHE_GB",
    help="What the cache may hold, GiB.  [default: half of its disk]",
)
@click.option(
    "--trainer-cache-gb",
    type=click.FloatRange(min=0.001),
    envvar="ST_WORKER_TRAINER_CACHE_GB",
    help="What trainers may keep from job to job, GiB.  [default: a quarter of the cache's disk]",
)
@click.option(
    "--models-gb",
    type=click.FloatRange(min=0.001),
    envvar="ST_WORKER_MODELS_GB",
    help="What pretrained models beside the cache may take, GiB.  [default: half of its disk]",
)
@click.option(
    "--share-models",
    is_flag=True,
    envvar="ST_WORKER_SHARE_MODELS",
    help="Let jobs of all organisations use the Hugging Face cache of this user (HF_HOME).",
)
@click.option(
    "--min-free-gb",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    envvar="ST_WORKER_MIN_FREE_GB",
    help="Take no job while less than this is free on the disk of the state folder, GiB.",
)
@click.option("--keep-runs", is_flag=True, help="Leave the run folders of finished attempts.")
def join(
    url: str,
    token: str | None,
    token_file: Path | None,
    name: str | None,
    state_dir: Path,
    slots: int | None,
    labels: dict[str, str],
    ephemeral: bool,
    idle_timeout: float | None,
    one_job: bool,
    log_format: Literal["auto", "json", "console"],
    cache_dir: Path | None,
    cache_gb: float | None,
    trainer_cache_gb: float | None,
    models_gb: float | None,
    share_models: bool,
    min_free_gb: float,
    keep_runs: bool,
) -> None:
    """Join the controller at URL and work for it until stopped.

    The first time needs a join token; later the credential that it was exchanged for is used.
    """
    from st_shared.logging import configure  # noqa: PLC0415
    from st_worker.accelerators import registry  # noqa: PLC0415
    from st_worker.folder import StateFolder  # noqa: PLC0415
    from st_worker.serve import describe, end_with, serve  # noqa: PLC0415
    from st_worker.settings import AgentSettings  # noqa: PLC0415

    if (one_job or idle_timeout is not None) and not ephemeral:
        raise UsageError("--idle-timeout and --one-job are for workers with --ephemeral: add it")
    configure(format=log_format)
    secret, address = _token(token, token_file), _checked_url(url)
    cache = cache_dir.expanduser().absolute() if cache_dir else None
    most = int(cache_gb * 2**30) if cache_gb else None
    kept = int(trainer_cache_gb * 2**30) if trainer_cache_gb else None
    folder = StateFolder(state_dir.expanduser().absolute(), cache, most, kept)
    folder.create()
    in_a_hurry = bool(folder.known_attempts())
    patience = registry.HURRIED_SECONDS if in_a_hurry else registry.OPEN_SECONDS
    found = registry.find_devices(slots, seconds=patience, has_joined=folder.credential.exists())
    description = describe(
        folder, name or _host_name(), slots, labels, ephemeral, found, one_job=one_job
    )
    settings = AgentSettings(
        keep_runs=keep_runs,
        idle_timeout_seconds=idle_timeout,
        models_gb=models_gb,
        shares_models=share_models,
        min_free_gb=min_free_gb,
    )
    end_with(serve(address, folder, secret, description, settings, found))


def _host_name() -> str:
    """The host's name as a worker may be called."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")
    return name[:120] or "worker"


def _token(token: str | None, token_file: Path | None) -> str | None:
    if token and token_file:
        raise UsageError("give --token or --token-file, not both")
    if token_file:
        token = token_file.read_text(encoding="utf-8").strip()
        if not token:
            raise UsageError(f"{token_file} is empty: it should hold a join token")
    return token or os.environ.get("ST_JOIN_TOKEN") or None


def _checked_url(url: str) -> str:
    """``scheme://host[:port][/path]`` without a closing slash."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise UsageError(
            f"{url!r} is not the address of a controller: write http://HOST:PORT or https://HOST"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


@st_worker.command()
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Say nothing; end with 1 unless a live agent runs.")
def status(state_dir: Path, as_json: bool, check: bool) -> None:
    """Show who this worker is and what it runs, from its state folder."""
    from st_worker.folder import StateFolder  # noqa: PLC0415
    from st_worker.status import is_healthy, read_status, status_lines  # noqa: PLC0415

    folder = StateFolder(state_dir.expanduser().absolute())
    if check:
        sys.exit(0 if is_healthy(folder, time.time()) else 1)
    found = read_status(folder)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(status_lines(found)))


@st_worker.command()
@_state_dir
@click.option("--now", is_flag=True, help="Stop preemptible jobs at a checkpoint at once.")
@click.option("--grace", metavar="DURATION", help='Stop them after so long, such as "30m".')
@click.option("--wait", "waits", is_flag=True, help="Return once nothing runs here any more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def drain(state_dir: Path, now: bool, grace: str | None, waits: bool, as_json: bool) -> None:
    """Have this host's worker offered nothing new, and let it finish what it runs.

    As `st workers drain`, for whoever is on the host; the agent stays, so that an operator may let
    it work again (`st workers activate`). An ephemeral worker leaves when it is done.
    """
    import asyncio  # noqa: PLC0415

    from st_shared.protocol.worker import DrainWish  # noqa: PLC0415
    from st_worker.drain import drain as ask  # noqa: PLC0415
    from st_worker.drain import until_idle  # noqa: PLC0415
    from st_worker.folder import StateFolder  # noqa: PLC0415

    folder = StateFolder(state_dir.expanduser().absolute())
    known = asyncio.run(ask(folder, DrainWish(grace_seconds=_grace(now, grace))))
    if not as_json:
        click.echo(f"{known.name} is offered nothing new")
    if waits:
        asyncio.run(until_idle(folder, lambda left: click.echo(f"attempts here: {left}", err=True)))
    if as_json:
        found = {"worker_id": known.worker_id, "name": known.name, "controller": known.controller}
        click.echo(json.dumps({**found, "attempts": len(folder.known_attempts())}, indent=2))


def _grace(now: bool, grace: str | None) -> float | None:
    """Seconds after which preemptible jobs are stopped; none: they are waited for."""
    from st_shared.spec.duration import seconds_of  # noqa: PLC0415

    if now and grace:
        raise UsageError("--now and --grace say two things: give one of them")
    if now or grace is None:
        return 0.0 if now else None
    try:
        seconds = float(str(seconds_of(grace)))
    except ValueError as error:
        raise UsageError(f"--grace {grace!r}: {error}") from None
    if seconds > _MOST_GRACE_SECONDS:
        raise UsageError(f"--grace {grace!r}: write 366d at most, or wait without end without it")
    return seconds


@st_worker.command()
@click.argument("url", required=False)
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(url: str | None, state_dir: Path, as_json: bool) -> None:
    """Find out what keeps this host from working for the controller at URL, and how to mend it.

    Without URL: the controller that was joined. Ends with 1 when something has to be mended.
    """
    from st_shared.logging import configure  # noqa: PLC0415
    from st_worker.doctor.check import document, exit_code, lines  # noqa: PLC0415
    from st_worker.doctor.run import examine  # noqa: PLC0415

    configure(level="error")  # what went wrong is among the findings
    findings = []
    for finding in examine(_checked_url(url) if url else None, state_dir.expanduser().absolute()):
        findings.append(finding)
        if not as_json:
            click.echo("\n".join(lines([finding])))
    if as_json:
        click.echo(json.dumps(document(findings), indent=2))
    sys.exit(exit_code(findings))
