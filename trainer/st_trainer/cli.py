"""The ``st-train`` command. Imports that cost time wait until a command needs them."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from st_shared import __version__
from st_shared.protocol.journal import ExitCode
from st_trainer.background import leave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from st_shared.spec import JobSpec, SpecProblem
    from st_shared.spec.training import TrainingSpec


_EXIT_CODES = """Exit codes of `run`: 0 done, 1 crashed, 2 bad job file, 3 stopped at a checkpoint,
4 bad data, 5 loss not finite, 6 out of memory, 7 disk full, 8 another process of the run was lost,
9 a fault of the accelerator or its driver."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, prog_name="st-train")
def st_train() -> None:
    """Train diffusion models from job files."""


def main() -> NoReturn:
    """Run ``st-train`` and end the process with its exit code, whatever goes on beside it."""
    try:
        st_train(prog_name="st-train")
    except SystemExit as end:
        leave(end.code)
    leave(0)


def _parse_datasets(
    _c: click.Context, _p: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path]:
    found = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (name and separator and folder):
            raise click.BadParameter(f"{value!r}: write NAME=FOLDER, such as digits=data/digits")
        found[name] = Path(folder)
    return found


@st_train.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--run-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for journal, checkpoints, samples and results.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_parse_datasets,
    help="Folder of a named dataset; else $ST_DATASETS_DIR/NAME or .st/datasets/NAME.",
)
@click.option(
    "--resume",
    default="none",
    show_default=True,
    metavar="none|latest|PATH|S3-URI",
    help="Go on from the newest checkpoint of --run-dir, from a checkpoint folder, or from the "
    "newest below s3://bucket/prefix.",
)
@click.option("--quiet", is_flag=True, help="Write the journal only; errors go to stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run(
    file: Path, run_dir: Path, datasets: dict[str, Path], resume: str, quiet: bool, as_json: bool
) -> None:
    """Carry out the job FILE on this machine, without a controller."""
    from st_trainer.interruption import stop_on_signals  # noqa: PLC0415

    rank = int(os.environ.get("RANK", "0"))
    with stop_on_signals() as stop:
        training = _training_of(_read_job(file, as_json), file, as_json)
        from st_trainer.command import run_command  # noqa: PLC0415
        from st_trainer.console import console_listener  # noqa: PLC0415

        shown = nullcontext(None) if quiet or rank else console_listener()
        with shown as listener:
            result = run_command(
                training,
                run_dir,
                datasets,
                environment=os.environ,
                resume=resume,
                stop=stop,
                listener=listener,
            )
    if as_json and not rank:
        click.echo(json.dumps(result.document(), indent=2))
    elif not quiet and not rank:
        click.echo(result.summary(), err=result.exit_code != ExitCode.SUCCEEDED)
    if (quiet or rank) and result.error:
        who = f"rank {rank}: " if rank else ""
        _tell_error(f"st-train: {who}{result.error}")
    sys.exit(result.exit_code)


def _tell_error(text: str) -> None:
    """Say it on standard error; where that lies on a full disk, the exit code still tells."""
    try:
        click.echo(text, err=True)
    except OSError:
        # What could not be written would be tried again at the end, and fail the process anew.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@st_train.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--processes", type=click.IntRange(1, 1024), required=True, help="On this host.")
@click.option("--nodes", type=click.IntRange(1, 1024), default=1, help="Hosts that take part.")
@click.option("--node-rank", type=click.IntRange(0, 1023), default=0, help="Which this is, from 0.")
@click.option(
    "--rendezvous", metavar="HOST:PORT", help="Of the host of rank 0; needed with several nodes."
)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def launch(
    processes: int, nodes: int, node_rank: int, rendezvous: str | None, arguments: tuple[str, ...]
) -> None:
    """Train as several processes, one an accelerator: `st-train launch --processes 2 run ...`.

    ARGUMENTS are those of one process. `training.batch_size` is that of each; gradients are
    averaged over all. Exit codes are those of `run`.
    """
    if nodes > 1 and rendezvous is None:
        raise click.UsageError("with --nodes give --rendezvous HOST:PORT of the host of rank 0")
    if node_rank >= nodes:
        raise click.UsageError(f"--node-rank {node_rank}: there are {nodes} nodes, from 0")
    from st_trainer.launch import Hosts  # noqa: PLC0415 -- torch
    from st_trainer.launch import launch as start  # noqa: PLC0415

    sys.exit(start(processes, Hosts(nodes, node_rank, rendezvous), arguments))


@st_train.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def validate(file: Path, as_json: bool) -> None:
    """Check the job FILE; every mistake is named with its field. Exit code 2: mistakes."""
    job = _read_job(file, as_json)
    if as_json:
        click.echo(json.dumps({"ok": True, "kind": job.kind, "problems": []}))
    else:
        what = f"{job.training.steps} steps" if job.training else f"kind {job.kind}"
        click.echo(f"{file}: ok; {job.name}, {what}")


@st_train.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--gpu",
    metavar="NAME|BYTES",
    help="Propose a setting that fits it: H100-80GB, RTX4090-24GB, 24GB ...",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 65_536),
    help="That train together, one an accelerator; else those that the job asks for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(file: Path, gpu: str | None, processes: int | None, as_json: bool) -> None:
    """Predict memory and pace of the job FILE from the configuration of its model.

    No weights are read or downloaded. Exit code 6: it fits --gpu with no setting known here.
    """
    job = _read_job(file, as_json)
    training = _training_of(job, file, as_json)
    asked = training.distributed.processes or job.resources.slots * job.resources.nodes
    from st_shared.spec import SpecProblem  # noqa: PLC0415
    from st_trainer.errors import BadSpecError  # noqa: PLC0415
    from st_trainer.planning.command import plan_command  # noqa: PLC0415 -- torch

    try:
        fits, found, text = plan_command(training, gpu, processes or asked)
    except BadSpecError as error:
        field, _, said = str(error).partition(": ")
        _refuse(file, [SpecProblem(field, said)], as_json)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--gpu") from None
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(text))
    if not fits:
        sys.exit(ExitCode.OUT_OF_MEMORY)


@st_train.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole JSON Schema.")
def schema(as_json: bool) -> None:
    """Show what a job file may hold: a table of keys, or the JSON Schema with --json."""
    from st_shared.spec import JobSpec  # noqa: PLC0415
    from st_trainer.option_table import option_lines  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps(JobSpec.model_json_schema(), indent=2))
    else:
        click.echo("\n".join(option_lines(JobSpec)))


@st_train.command()
@click.option("--json", "as_json", is_flag=True, help="Print names, options and defaults as JSON.")
def families(as_json: bool) -> None:
    """List the model families and their options."""
    from st_shared.spec import FAMILIES  # noqa: PLC0415
    from st_trainer.option_table import option_lines  # noqa: PLC0415

    if as_json:
        document = [
            {
                "name": family.name,
                "media": family.media,
                "summary": family.summary,
                "needs_base": family.needs_base,
                "config": family.config.model_json_schema(),
            }
            for family in FAMILIES.values()
        ]
        click.echo(json.dumps(document, indent=2))
        return
    for family in FAMILIES.values():
        click.echo(f"{family.name} ({family.media}): {family.summary}")
        click.echo("\n".join(f"  {line}" for line in option_lines(family.config)))


def _read_job(file: Path, as_json: bool) -> "JobSpec":
    """The job in ``file``; mistakes are printed and end the command with BAD_SPEC."""
    from st_shared.spec import SpecProblems, read_job_file  # noqa: PLC0415

    try:
        return read_job_file(file)
    except SpecProblems as error:
        _refuse(file, error.problems, as_json)


def _training_of(job: "JobSpec", file: Path, as_json: bool) -> "TrainingSpec":
    """What ``job`` trains; a job that trains nothing ends the command with BAD_SPEC."""
    from st_shared.spec import SpecProblem  # noqa: PLC0415

    if job.training is None:
        said = f"st-train runs `training` only; submit a job of kind {job.kind} with `st submit`"
        _refuse(file, [SpecProblem(job.kind, said)], as_json)
    return job.training


def _refuse(file: Path, problems: "Sequence[SpecProblem]", as_json: bool) -> NoReturn:
    """Print what is wrong with ``file`` and end the command with BAD_SPEC."""
    found = [{"field": problem.field, "message": problem.message} for problem in problems]
    if as_json:
        click.echo(json.dumps({"ok": False, "problems": found}, indent=2))
    else:
        click.echo(f"{file}: {len(found)} problem{'s' if len(found) > 1 else ''}", err=True)
        click.echo("\n".join(f"  {problem}" for problem in problems), err=True)
    sys.exit(ExitCode.BAD_SPEC)
