"""One run: from a specification and folders to weights, pictures and an exit code."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from st_shared.protocol.journal import ExitCode
from st_shared.spec.section import Section
from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.caching.prepare import prepare_encodings
from st_trainer.checkpoint import complete_checkpoints
from st_trainer.companion import Companion, accompanied
from st_trainer.data.bucketing import described, in_buckets
from st_trainer.data.index import Peers
from st_trainer.data.locate import Place
from st_trainer.data.medium import Medium
from st_trainer.data.reading import Reading, read_datasets
from st_trainer.data.samples import Samples
from st_trainer.data.shard import Change
from st_trainer.errors import BadSpecError, CheckpointError
from st_trainer.execution.demands import device_type, must_suit
from st_trainer.execution.determinism import same_each_time
from st_trainer.families.registry import REGISTRY
from st_trainer.journal import Journal
from st_trainer.loop import Ending, train
from st_trainer.publishing.publisher import Publisher
from st_trainer.ranks import Ranks, join, rank_of, threads_here, world_of
from st_trainer.report.report import Report
from st_trainer.results import draw_with_base, write_results
from st_trainer.resume import Resume, go_on
from st_trainer.run_folder import RunFolder
from st_trainer.sampling import picture_size
from st_trainer.scripts.hooks import Hooks
from st_trainer.session import Session
from st_trainer.trackers.trackers import Trackers
from st_trainer.validation.prompts import checked, placed
from st_trainer.validation.validator import Validator
from st_trainer.weights import load_base, model_config, open_denoiser

INDEX_VARIABLE = "ST_INDEX_DIR"
"""Folder for the indexes of datasets, which runs may share; else each keeps its own."""
CACHE_VARIABLE = "ST_DATA_CACHE_DIR"
"""Folder for what is fetched from buckets, which runs may share; else it lies in the index."""
_FILES_A_REMARK = 100_000


def run_training(
    spec: TrainingSpec,
    sources: Sequence[Place],
    folder: RunFolder,
    journal: Journal,
    *,
    resume: Resume,
    stop: Callable[[], bool],
) -> int:
    """Carry ``spec`` out in ``folder``; gives SUCCEEDED, or PREEMPTED when ``stop`` cut it short.

    ``sources`` holds the place of each dataset.

    Raises:
        TrainerError: the run cannot go on, for a reason that its class names.
    """
    is_first = rank_of(os.environ) == 0  # it alone writes
    if spec.steps == 0:
        return validate_base(spec, folder, journal) if is_first else ExitCode.SUCCEEDED
    if resume == "none" and is_first and complete_checkpoints(folder.checkpoints):
        raise BadSpecError(
            f"{folder.root} already holds checkpoints of a run: give --resume latest to go on, or "
            "another --run-dir to start anew"
        )
    must_suit(spec, device_type())
    journal.progress("loading", 0, spec.steps)
    with same_each_time(wanted=spec.speed.deterministic):
        session = open_session(spec, sources, folder, journal, stop)
        tell_what_is_trained(session, journal)
        if resume != "none":
            go_on(session, folder, journal, resume)
            must_agree(session)
        with place_of(session, folder) as place:
            validates = session.ranks.is_first or session.strategy.is_spread
            validator = Validator(session, place, journal, stop) if validates else None
            if not session.ranks.is_first:
                return train_and_write(session, validator, place, journal, stop, folder.checkpoints)
            with accompanied(companions_of(session, place, journal, stop), journal) as ends:
                code = train_and_write(session, validator, place, journal, stop, folder.checkpoints)
                ends.how = "succeeded" if code == ExitCode.SUCCEEDED else "stopped"
        if code == ExitCode.SUCCEEDED:
            journal.progress("done", session.step, spec.steps)
    return code


def train_and_write(
    session: Session,
    validator: Validator | None,
    folder: RunFolder,
    journal: Journal,
    stop: Callable[[], bool],
    checkpoints: Path,
) -> int:
    """Train ``session``; gives SUCCEEDED or PREEMPTED. Whoever has a ``validator`` writes.

    ``checkpoints`` is the folder of those of which every process writes its part.
    """
    if validator:
        validator.begin()
    ending = train(
        session,
        folder,
        journal,
        stop,
        validate=validator.validate if validator else idle,
        checkpoints=checkpoints,
    )
    session.encodings.flush()
    if ending is Ending.STOPPED:
        steps = session.spec.steps
        journal.log(f"stopped at step {session.step} of {steps}; resume to go on from there")
        return ExitCode.PREEMPTED
    if validator:
        validator.complete()
        write_results(session, folder, journal)
    session.ranks.wait()
    return ExitCode.SUCCEEDED


@contextmanager
def place_of(session: Session, folder: RunFolder) -> Iterator[RunFolder]:
    """The folder of the run, for the first process.

    Where weights are spread, the others draw samples with it, and what they draw is thrown away.
    """
    if session.ranks.is_first or not session.strategy.is_spread:
        yield folder
        return
    with TemporaryDirectory(prefix="st-train-") as aside:
        place = RunFolder(Path(aside))
        place.create()
        yield place


def idle() -> None:
    """What the others do while the first process validates."""


def companions_of(
    session: Session, folder: RunFolder, journal: Journal, stop: Callable[[], bool]
) -> list[Companion]:
    """What goes along with the run; the report comes last, since it tells of the others."""
    spec = session.spec
    hooks = Hooks(spec.hooks, folder, journal, stop)
    found: list[Companion] = [
        Publisher(each, session, folder, journal, uploaded=hooks.uploaded) for each in spec.publish
    ]
    found.append(hooks)  # behind the publishers, which it hears of
    if spec.trackers:
        found.append(Trackers(spec.trackers, spec, folder, journal, os.environ))
    return [*found, Report(session, folder, journal)]


def must_agree(session: Session) -> None:
    """Raise ``CheckpointError`` when some rank has gone on from another checkpoint."""
    steps = session.ranks.gather(session.step)
    if len(set(steps)) > 1:
        raise CheckpointError(f"the processes went on from different checkpoints, of steps {steps}")


def open_session(
    spec: TrainingSpec,
    sources: Sequence[Place],
    folder: RunFolder,
    journal: Journal,
    stop: Callable[[], bool] = lambda: False,
) -> Session:
    """The model, and the samples in the form that it wants, encoded ahead until told to stop."""
    root = Path(os.environ.get(INDEX_VARIABLE) or folder.index)
    if spec.model.base:
        denoiser = open_denoiser(spec, list)
        samples, held_out = load_samples(spec, denoiser.config, sources, root, journal)
    else:
        samples, held_out = load_samples(spec, model_config(spec.model), sources, root, journal)
        denoiser = open_denoiser(spec, lambda: samples.captions)
    drawn = checked(spec, placed(spec.validation, sources[0]))
    with_pictures = [each for each in drawn.prompts if each.conditioning]
    for each in with_pictures:
        picture_size(each, denoiser, None)  # what cannot be read is told now
    encodings = prepare_encodings(
        spec.model_copy(update={"validation": drawn}),  # with the prompts of libraries
        denoiser,
        (samples, held_out),
        join(spec.distributed),
        folder.cache,
        journal,
        stop,
    )
    return Session(spec, samples, denoiser, drawn, held_out, encodings)


def validate_base(spec: TrainingSpec, folder: RunFolder, journal: Journal) -> int:
    """Load ``model.base`` and draw the prompts with it, without training."""
    journal.progress("loading", 0, 0)
    denoiser = load_base(spec.model)
    journal.log(f"loaded {spec.model.base}: weights fit family {spec.model.family}")
    journal.progress("validating", 0, 0)
    drawn = checked(spec, placed(spec.validation, Path()))
    draw_with_base(denoiser, spec, drawn, folder, journal)
    journal.progress("done", 0, 0)
    return ExitCode.SUCCEEDED


def load_samples(
    spec: TrainingSpec, config: Section, sources: Sequence[Place], root: Path, journal: Journal
) -> tuple[Samples, Samples | None]:
    """Every usable sample of the datasets, and those that are held out.

    What was left out or changed is told. All processes of the training read together; the index is
    kept below ``root``.
    """
    medium = in_buckets(REGISTRY[spec.model.family].medium(config), spec)
    peers = peers_of(Ranks(join(spec.distributed)), journal)
    cache = Path(os.environ.get(CACHE_VARIABLE) or root)

    def read(*, held_out: bool) -> Reading:
        pairs = zip(spec.datasets, sources, strict=True)
        chosen = [(each, place) for each, place in pairs if each.evaluation is held_out]
        datasets, places = zip(*chosen, strict=True)
        reading = read_datasets(datasets, places, medium, root=root, peers=peers, cache=cache)
        tell_what_was_read(reading, medium, journal, "held-out samples" if held_out else "samples")
        return reading

    reading = read(held_out=False)
    tell_buckets(reading.samples, medium, spec, journal)
    has_more = any(dataset.evaluation for dataset in spec.datasets)
    return reading.samples, read(held_out=True).samples if has_more else None


def _samples_a_step(spec: TrainingSpec) -> int:
    shares = world_of(os.environ) // spec.distributed.context_parallel
    return spec.batch_size * spec.accumulation * shares


class IndexProgress:
    """Tells now and then how many files this process has gone through."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._count = 0

    def __call__(self, more: int) -> None:
        """``more`` files are in the index."""
        before, self._count = self._count, self._count + more
        if self._count // _FILES_A_REMARK > before // _FILES_A_REMARK:
            self._journal.log(f"{self._count:,} files are in the index")


def peers_of(ranks: Ranks, journal: Journal) -> Peers:
    """The processes of this training, which divide the machine's cores while they read."""
    told = IndexProgress(journal)
    return Peers(ranks.rank, ranks.count, ranks.gather, threads_here(os.environ), told)


def tell_what_was_read(reading: Reading, medium: Medium, journal: Journal, what: str) -> None:
    """Name each file that was left out, and sum up what was changed to fit."""
    for remark in reading.skipped:
        journal.log(f"skipped {remark.name}: {remark.text}", "warning")
    more = reading.skipped_count - len(reading.skipped)
    if more > 0:
        journal.log(f"skipped {more} more files that cannot be used", "warning")
    for change in reading.changed:
        journal.log(sentence(change, medium), "warning")
    left_out = f", {reading.skipped_count} skipped" if reading.skipped else ""
    journal.log(f"{len(reading.samples)} {what}{left_out}")


def tell_buckets(samples: Samples, medium: Medium, spec: TrainingSpec, journal: Journal) -> None:
    """Name the buckets with their samples, where there is more than one, and which are small."""
    counts, noun, batch_size = samples.bucket_counts, medium.noun, _samples_a_step(spec)
    if len(samples.bucket_sizes) == 1:
        return
    if len(counts) > 1:  # sliders of one size are not told apart
        journal.log(described(counts, medium))
    small = int((samples.bucket_sizes < batch_size).sum())
    if small:
        mend = "raise buckets.seconds" if noun == "sound" else "crop those, raise buckets.step"
        journal.log(
            f"{small} buckets hold fewer {noun}s than a batch of {batch_size}, so one comes "
            f"more than once in it: {mend} or lower batch_size",
            "warning",
        )
    unseen = samples.never_seen(spec.steps * batch_size, batch_size)
    if unseen:
        journal.log(
            f"about {unseen} {noun}s will not be seen: in {spec.steps} steps their buckets fill no "
            f"batch of {batch_size}: give more steps, fewer buckets or a smaller batch_size",
            "warning",
        )


def sentence(change: Change, medium: Medium) -> str:
    """What was done to how many samples, with an example."""
    return (
        f"{change.count} {medium.noun}s were {change.kind} to fit the model; the first: "
        f"{change.name}, {change.text}"
    )


def tell_what_is_trained(session: Session, journal: Journal) -> None:
    """Say what is trained and where, and which prompts hold words that the model cannot learn."""
    spec, denoiser = session.spec, session.denoiser
    numel = session.strategy.count
    count = sum(numel(parameter) for parameter in session.module.parameters())
    learned = sum(numel(parameter) for parameter in trained(session.module).values())
    ranks = session.ranks.count
    together = f", {ranks} processes together" if ranks > 1 else ""
    part = "" if learned == count else f" of which {learned:,} are trained ({spec.adapter_kind}),"
    journal.log(
        f"{denoiser.family.name}, {count:,} parameters,{part} {spec.precision}, on "
        f"{session.accelerator.device}{together}; {spec.steps} steps of {session.batch_size} "
        "samples"
    )
    texts = [each.prompt for each in session.drawn.prompts]
    unknown = {word for text in texts for word in denoiser.unknown_words(text)}
    if unknown:
        words = ", ".join(sorted(unknown))
        journal.log(f"validation.prompts hold words that no caption has: {words}", "warning")
