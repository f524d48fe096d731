"""One run: from a specification and folders to weights, pictures and an exit code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from st_shared.protocol.journal import ExitCode
from st_shared.spec.digest import spec_sha256
from st_shared.spec.section import Section
from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.checkpoint import (
    check_belongs,
    complete_checkpoints,
    restore,
    verify_checkpoint,
)
from st_trainer.data.folder import Reading, Remark, Samples, read_folders
from st_trainer.errors import BadSpecError, CheckpointError
from st_trainer.families.registry import REGISTRY
from st_trainer.journal import Journal
from st_trainer.loop import Ending, train
from st_trainer.results import prompt_grid, write_picture, write_results
from st_trainer.run_folder import RunFolder
from st_trainer.sampling import pictures
from st_trainer.session import Session
from st_trainer.weights import load_base, model_config, open_denoiser

Resume = Literal["none", "latest"] | Path
"""Start anew, go on from the newest whole checkpoint of the run folder, or from one given."""

_MOST_REMARKS = 200
"""Files that are named one by one; the rest is counted."""


def run_training(
    spec: TrainingSpec,
    sources: Sequence[Path],
    folder: RunFolder,
    journal: Journal,
    *,
    resume: Resume,
    stop: Callable[[], bool],
) -> int:
    """Carry ``spec`` out in ``folder``; gives SUCCEEDED, or PREEMPTED when ``stop`` cut it short.

    ``sources`` holds the folder of each dataset.

    Raises:
        TrainerError: the run cannot go on, for a reason that its class names.
    """
    if spec.steps == 0:
        return validate_base(spec, folder, journal)
    if resume == "none" and complete_checkpoints(folder.checkpoints):
        raise BadSpecError(
            f"{folder.root} already holds checkpoints of a run: give --resume latest to go on, or "
            "another --run-dir to start anew"
        )
    journal.progress("loading", 0, spec.steps)
    session = open_session(spec, sources, journal)
    tell_what_is_trained(session, journal)
    if resume != "none":
        go_on(session, folder, journal, resume)
    if train(session, folder, journal, stop) is Ending.STOPPED:
        journal.log(f"stopped at step {session.step} of {spec.steps}; resume to go on from there")
        return ExitCode.PREEMPTED
    write_results(session, folder, journal)
    journal.progress("done", session.step, spec.steps)
    return ExitCode.SUCCEEDED


def open_session(spec: TrainingSpec, sources: Sequence[Path], journal: Journal) -> Session:
    """The model, and the samples in the form that it wants."""
    if spec.model.base:
        denoiser = open_denoiser(spec, list)
        samples = load_samples(spec, denoiser.config, sources, journal)
    else:
        samples = load_samples(spec, model_config(spec.model), sources, journal)
        denoiser = open_denoiser(spec, lambda: samples.captions)
    pictures(spec.validation, denoiser.sample_shape)  # what cannot be drawn is told now
    return Session(spec, samples, denoiser)


def validate_base(spec: TrainingSpec, folder: RunFolder, journal: Journal) -> int:
    """Load ``model.base`` and draw the prompts with it, without training."""
    journal.progress("loading", 0, 0)
    denoiser = load_base(spec.model)
    journal.log(f"loaded {spec.model.base}: weights fit family {spec.model.family}")
    journal.progress("validating", 0, 0)
    grid = prompt_grid(denoiser, spec, Path(str(spec.model.base)).name)
    write_picture(folder.sample_grid, grid)
    journal.output("sample_grid", folder.relative(folder.sample_grid))
    journal.progress("done", 0, 0)
    return ExitCode.SUCCEEDED


def load_samples(
    spec: TrainingSpec, config: Section, sources: Sequence[Path], journal: Journal
) -> Samples:
    """Every usable sample of the datasets; what was left out or changed is told."""
    shape = REGISTRY[spec.model.family].sample_shape(config)
    reading = read_folders(spec.datasets, sources, size=shape[1], channels=shape[0])
    tell_what_was_read(reading, journal)
    return reading.samples


def tell_what_was_read(reading: Reading, journal: Journal) -> None:
    """Name each file that was left out, and sum up what was changed to fit."""
    for remark in reading.skipped[:_MOST_REMARKS]:
        journal.log(f"skipped {remark.name}: {remark.text}", "warning")
    more = len(reading.skipped) - _MOST_REMARKS
    if more > 0:
        journal.log(f"skipped {more} more files that cannot be used", "warning")
    for note in summed_up(reading.changed):
        journal.log(note, "warning")
    left_out = f", {len(reading.skipped)} skipped" if reading.skipped else ""
    journal.log(f"{len(reading.samples)} samples{left_out}")


def summed_up(changes: Sequence[Remark]) -> list[str]:
    """One sentence for each kind of change, with a count and an example."""
    kinds: dict[str, list[Remark]] = {}
    for remark in changes:
        kinds.setdefault(remark.text.split(" ", 1)[0], []).append(remark)
    return [
        f"{len(remarks)} images were {kind} to fit the model; the first: {remarks[0].name}, "
        f"{remarks[0].text}"
        for kind, remarks in kinds.items()
    ]


def tell_what_is_trained(session: Session, journal: Journal) -> None:
    """Say what is trained and where, and which prompts hold words that the model cannot learn."""
    spec, denoiser = session.spec, session.denoiser
    count = sum(parameter.numel() for parameter in session.module.parameters())
    learned = sum(parameter.numel() for parameter in trained(session.module).values())
    part = "" if learned == count else f" of which {learned:,} are trained ({spec.adapter_kind}),"
    journal.log(
        f"{denoiser.family.name}, {count:,} parameters,{part} {spec.precision}, on "
        f"{session.accelerator.device}; {spec.steps} steps of {spec.batch_size} samples"
    )
    unknown = {word for text in spec.validation.prompts for word in denoiser.unknown_words(text)}
    if unknown:
        words = ", ".join(sorted(unknown))
        journal.log(f"validation.prompts hold words that no caption has: {words}", "warning")


def go_on(session: Session, folder: RunFolder, journal: Journal, resume: Resume) -> None:
    """Restore ``session`` from the checkpoint that ``resume`` means.

    Raises:
        BadSpecError: another specification made the checkpoint.
        CheckpointError: the checkpoint that was given, or every one there is, is damaged.
    """
    if isinstance(resume, Path):
        restore_verified(session, resume)
        journal.log(f"resumed from {resume.name}, step {session.step}")
        return
    candidates = complete_checkpoints(folder.checkpoints)
    for candidate in candidates:
        try:
            restore_verified(session, candidate)
        except CheckpointError as error:
            journal.log(f"{error}; trying the one before", "warning")
            continue
        journal.log(f"resumed from {candidate.name}, step {session.step}")
        return
    if candidates:
        raise CheckpointError(
            f"every checkpoint in {folder.checkpoints} is damaged; start anew in another --run-dir"
        )
    journal.log("no checkpoint to resume from; starting at step 0")


def restore_verified(session: Session, checkpoint: Path) -> None:
    """Restore ``session`` from ``checkpoint`` once its checksums and specification are right."""
    manifest = verify_checkpoint(checkpoint)
    check_belongs(spec_sha256(session.spec), manifest, checkpoint)
    restore(session, checkpoint)
