"""The training loop: one for every family, objective and device."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from st_trainer.batch import draw_batch
from st_trainer.checkpoint import prune_checkpoints
from st_trainer.checkpoint_writer import CheckpointWriter
from st_trainer.damage import tell_damaged
from st_trainer.errors import DamagedBucketError, NotFiniteError
from st_trainer.journal import Journal
from st_trainer.optimizers.groups import rate_of
from st_trainer.optimizers.registry import peak_rate
from st_trainer.optimizers.schedule import learning_rate
from st_trainer.pace import Pace
from st_trainer.run_folder import RunFolder
from st_trainer.session import Session
from st_trainer.sharded_writer import ShardedWriter, is_sharded
from st_trainer.share import Share
from st_trainer.snapshot import random_state, take_snapshot

_PROGRESS_SECONDS = 5.0
"""Longest silence between two reports of progress while steps are being made."""


Writer = CheckpointWriter | ShardedWriter


class Ending(StrEnum):
    """How the loop ended."""

    FINISHED = "finished"
    """Every step is done."""
    STOPPED = "stopped"
    """Asked to stop; the state is in a checkpoint."""


def train(
    session: Session,
    folder: RunFolder,
    journal: Journal,
    stop: Callable[[], bool],
    timer: Callable[[], float] = monotonic,
    validate: Callable[[], None] = lambda: None,
    checkpoints: Path | None = None,
) -> Ending:
    """Train ``session`` to its last step, or to a checkpoint once ``stop`` says so.

    The first rank calls ``validate`` at the steps that the specification names. ``checkpoints`` is
    where all ranks write those of which each has a part; none: in ``folder``.

    Raises:
        NotFiniteError: the loss or its gradient became NaN or infinite.
    """
    spec, peak = session.spec, peak_rate(session.spec)
    meter = Meter(session, journal, timer)
    saved = session.step
    with checkpoint_writer(session, folder, journal, checkpoints or folder.checkpoints) as writer:
        while session.step < spec.steps and not session.ranks.any(stop()):
            rate = learning_rate(peak, spec.schedule, session.step, spec.steps)
            loss, norm = next_step(session, rate)
            meter.record(loss, norm, rate)
            writer.poll()
            if session.step % spec.checkpoint.every == 0 or session.step == spec.steps:
                checkpoint(session, writer, journal)
                saved = session.step
            validated = session.step % spec.validation.every == 0 or session.step == spec.steps
            if validated and (session.ranks.is_first or session.strategy.is_spread):
                if spec.validation.script:
                    writer.finish()  # it is told of the newest checkpoint
                validate()
        if saved != session.step:
            checkpoint(session, writer, journal)
    session.ranks.wait()  # whoever ends first must not end those that still write
    return Ending.FINISHED if session.step == spec.steps else Ending.STOPPED


def next_step(session: Session, rate: float) -> tuple[float, float]:
    """A step on the next batch; those of a shape of which all samples are damaged are passed over.

    Every rank finds that out by itself, before its first gradient: each has seen them all.

    Raises:
        DamagedBucketError: all samples of the run are damaged.
    """
    while True:
        indexes = session.sampler.take(session.batch_size)
        try:
            return step(session, indexes, rate)
        except DamagedBucketError:
            if not session.samples.has_sound:
                raise


def step(session: Session, indexes: Sequence[int], rate: float) -> tuple[float, float]:
    """One optimiser step on the samples at ``indexes``; gives loss and gradient norm."""
    accelerator, optimizer = session.accelerator, session.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate_of(group, rate)
    with accelerator.accumulate(session.denoiser.module):
        loss = session.ranks.mean(backward(session, indexes))
        norm = gradient_norm(session)
        check_finite(session, indexes, loss, norm)
        optimizer.step()
        optimizer.zero_grad()
    for technique in session.techniques:
        technique.stepped(session)
    session.step += 1
    return loss.item(), float(norm)


def backward(session: Session, indexes: Sequence[int]) -> Tensor:
    """Gradients on this rank's share of the samples at ``indexes``, part by part; gives the loss.

    Each part draws the random numbers of all ``indexes`` and takes its rows, so that parts of any
    number learn the same.
    """
    parts, whole = session.spec.accumulation, session.ranks.share
    before, losses = session.generator.get_state(), []
    for part in range(parts):
        session.generator.set_state(before)
        share = Share(whole.rank * parts + part, whole.parts * parts)
        with session.strategy.adding_up(last=part == parts - 1):
            loss = batch_loss(session, indexes, share) / parts
            session.accelerator.backward(loss * session.ranks.together)  # each has a part of it
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def gradient_norm(session: Session) -> Tensor:
    """Norm of all gradients, a scalar; they are clipped to what the specification allows."""
    if session.fused:
        return session.fused.gradient_norm()
    most = session.spec.optimizer.max_grad_norm
    return session.strategy.clip(float("inf") if most is None else most)


def batch_loss(session: Session, indexes: Sequence[int], share: Share | None = None) -> Tensor:
    """The loss on a ``share`` of the samples at ``indexes``, or this rank's; numbers are fresh."""
    batch = draw_batch(session, indexes, share)
    for technique in session.techniques:
        technique.prepare(session, batch)
    denoiser = session.denoiser
    with session.accelerator.autocast():
        answer = session.answer(batch.noisy, batch.times, batch.condition)
        loss = denoiser.objective.loss(answer, batch.target, batch.times, batch.weights)
        for technique in session.techniques:
            term = technique.penalty(session, batch, answer)
            loss = loss if term is None else loss + term
    return loss


def check_finite(session: Session, indexes: Sequence[int], loss: Tensor, norm: Tensor) -> None:
    """Raise ``NotFiniteError``, naming step and files, before bad numbers reach the weights."""
    if torch.isfinite(loss) and torch.isfinite(norm):
        return
    if torch.isfinite(loss) and session.accelerator.scaler is not None:
        return  # the scale of fp16 was too large: it is lowered, and this step is left out
    what = "loss" if not torch.isfinite(loss) else "gradient"
    names = ", ".join(dict.fromkeys(session.samples.names(indexes)))
    raise NotFiniteError(
        f"the {what} is not finite at step {session.step + 1}: lower optimizer.learning_rate or "
        f"look at the files of this batch: {names}"
    )


def checkpoint(session: Session, writer: Writer, journal: Journal) -> None:
    """Begin to write a checkpoint; every rank takes part, and writes its own or the first all."""
    journal.progress("saving", session.step, session.spec.steps)
    tell_damaged(session.samples, session.ranks, journal)
    sharded = isinstance(writer, ShardedWriter)
    if isinstance(writer, ShardedWriter):
        writer.begin(session.step)
    random = session.ranks.gather(random_state(session))
    if session.strategy.is_spread or session.ranks.is_first:
        snapshot = take_snapshot(session, random, sharded=sharded)
        if sharded or session.ranks.is_first:
            writer.write(snapshot)


def checkpoint_writer(
    session: Session, folder: RunFolder, journal: Journal, checkpoints: Path
) -> Writer:
    """A writer that tells of each checkpoint, and deletes those that are no longer kept.

    Raises:
        BadSpecError: every rank is to write its part, and they share no folder.
    """
    spec, ranks = session.spec.checkpoint, session.ranks

    def written(step: int, manifest: Path) -> None:
        journal.checkpoint(step, folder.relative(manifest))
        prune_checkpoints(folder.checkpoints, spec)

    if is_sharded(session, checkpoints, journal):
        return ShardedWriter(checkpoints, ranks, written, background=spec.background)
    return CheckpointWriter(folder.checkpoints, written, background=spec.background)


class Meter:
    """Turns the numbers of single steps into metrics, progress and the history of the loss."""

    def __init__(self, session: Session, journal: Journal, timer: Callable[[], float]) -> None:
        self._session, self._journal, self._timer = session, journal, timer
        self._pace = Pace(session.spec.steps, timer)
        self._pace.mark(session.step)
        self._told = timer()

    def record(self, loss: float, norm: float, rate: float) -> None:
        """Note one step; every ``log_every`` steps, tell of their mean loss."""
        session = self._session
        session.history.window.append(loss)
        due = session.step % session.spec.log_every == 0 or session.step == session.spec.steps
        if due:
            mean = session.history.close_window(session.step)
            values = {"loss": mean, "gradient_norm": norm, "learning_rate": rate}
            self._journal.metric(session.step, values)
        if due or self._timer() - self._told >= _PROGRESS_SECONDS:
            self._tell(loss)

    def _tell(self, loss: float) -> None:
        session = self._session
        self._told = self._timer()
        speed, remaining = self._pace.mark(session.step)
        shown = session.history.points[-1][1] if session.history.points else loss
        self._journal.progress(
            "training",
            session.step,
            session.spec.steps,
            steps_per_second=speed,
            eta_seconds=remaining,
            loss=shown,
        )
