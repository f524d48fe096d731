"""What happens when validation is due, in order: loss, samples, score, script, sweep."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from st_trainer.checkpoint import complete_checkpoints
from st_trainer.errors import BadSpecError
from st_trainer.evaluation import tell_held_out_loss
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.pictures.grid import sample_grid
from st_trainer.run_folder import RunFolder
from st_trainer.scripts.run import ScriptFailed, run_script
from st_trainer.session import Session
from st_trainer.validation.clip import METRIC as CLIP_METRIC
from st_trainer.validation.clip import ClipScore
from st_trainer.validation.frozen import frozen_random
from st_trainer.validation.previews import PreviewSet, preview_folder, write_previews
from st_trainer.validation.samples import (
    Drawn,
    as_picture,
    draw_all,
    suffix_of,
    tell_samples,
    write_picture,
    write_recording,
    write_samples,
)
from st_trainer.validation.sweep import SweepAdapters, SweepRun, sweep_runs

_BASE = "before training"


class Validator:
    """Draws and measures with the model of a session; the training goes on as if it had not."""

    def __init__(
        self, session: Session, folder: RunFolder, journal: Journal, stop: Callable[[], bool]
    ) -> None:
        """Load what it needs.

        Raises:
            BadSpecError: a model for scores, or a LoRA of a sweep, cannot be used.
        """
        self._session, self._folder, self._journal, self._stop = session, folder, journal, stop
        self._settings = settings = session.drawn
        self._clip = None
        if settings.clip and session.ranks.is_first:
            self._clip = ClipScore(settings.clip, session.accelerator.device)
        sweep = settings.sweep
        adapters = sweep.adapters if sweep else []
        self._adapters = SweepAdapters(adapters, session.denoiser) if adapters else None

    def begin(self) -> None:
        """Draw with the model before training, unless that was done, or it is gone."""
        wanted = self._settings.baseline
        if wanted is None:
            wanted = self._session.spec.model.base is not None
        if not wanted or not self._settings.prompts or not self._lacks(0):
            return
        with self._frozen():
            try:
                self._draw(0, _BASE, resumed=self._session.step > 0)
            except BadSpecError as gone:
                self._journal.log(f"no samples from before training: {gone}", "warning")

    def validate(self) -> None:
        """Measure and draw at the present step."""
        session, step = self._session, self._session.step
        with self._frozen():
            tell_held_out_loss(session, self._journal)
            if self._settings.prompts:
                self._draw(step, f"step {step:,} of {session.spec.steps:,}")
                if self._sweep_is_due(step):
                    self._sweep(step)

    def complete(self) -> None:
        """Draw at the last step unless that was done: it was resumed into a new run folder."""
        if self._settings.prompts and self._lacks(self._session.step):
            self.validate()

    def _frozen(self) -> AbstractContextManager[None]:
        return frozen_random(self._session.accelerator.device)

    def _lacks(self, step: int) -> bool:
        """Whether samples of ``step`` are to be drawn; where weights are spread, all draw."""
        folder = preview_folder(self._folder.previews, "samples", step)
        return self._session.agree(PreviewSet.read(folder) is None)

    def _draw(self, step: int, title: str, *, resumed: bool = False) -> None:
        session, settings = self._session, self._settings
        self._journal.progress("validating", session.step, session.spec.steps)
        adapter, module = session.adapter, session.module
        with session.evaluating() as denoiser:
            if resumed:
                with adapter.at(module, 0):
                    drawn = draw_all(denoiser, settings)
            else:
                drawn = draw_all(denoiser, settings, partial(adapter.at, module))
        written = write_samples(drawn, denoiser, settings, self._folder, step, title)
        tell_samples(written, self._folder, self._journal, step)
        told = [("", each) for each in drawn]
        write_previews(self._folder.previews, "samples", step, told, denoiser.medium)
        self._score(drawn, step)
        self._judge(drawn, denoiser, step)

    def _score(self, drawn: list[Drawn], step: int) -> None:
        """By CLIP, where that is asked for."""
        if self._clip is None:
            return
        samples = [torch.from_numpy(each.values) for each in drawn]
        scores = self._clip(samples, [each.prompt.prompt for each in drawn])
        self._journal.metric(step, {CLIP_METRIC: float(np.mean(scores))})

    def _judge(self, drawn: list[Drawn], denoiser: Denoiser, step: int) -> None:
        """By the script, where there is one."""
        script = self._settings.script
        if script is None or not self._session.ranks.is_first:
            return
        folder = self._folder.judged(step)
        try:
            self._lay_out(drawn, denoiser, folder)
            newest = next(iter(complete_checkpoints(self._folder.checkpoints)), None)
            checkpoint = str(newest.absolute()) if newest else ""
            variables = {
                "ST_STEP": str(step),
                "ST_SAMPLES": str(folder.absolute()),
                "ST_CHECKPOINT": checkpoint,
                "ST_RUN_DIR": str(self._folder.root.absolute()),
            }
            arguments = [variables["ST_SAMPLES"], checkpoint]
            result = run_script("script", script, arguments, variables, folder, self._stop)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if result.error is None:
            if result.metrics:
                self._journal.metric(step, dict(result.metrics))
            self._journal.log(f"validation.script at step {step}: done in {result.seconds:.1f} s")
            return
        said = f"validation.script failed at step {step}: {result.error}"
        if script.required and not self._stop():
            raise ScriptFailed(said)
        self._journal.log(said, "warning")

    def _lay_out(self, drawn: list[Drawn], denoiser: Denoiser, folder: Path) -> None:
        """Each sample in a file, and ``prompts.json``, which says what they are."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        suffix, told = suffix_of(denoiser, self._settings), []
        for number, each in enumerate(drawn):
            path = folder / f"{number:03d}{suffix}"
            if suffix == ".png":
                write_picture(path, as_picture(each.values))
            else:
                write_recording(path, each.values, denoiser)
            told.append({"file": path.name, **each.prompt.model_dump(exclude_none=True)})
        (folder / "prompts.json").write_text(json.dumps(told, indent=1))

    def _sweep_is_due(self, step: int) -> bool:
        sweep = self._settings.sweep
        if sweep is None:
            return False
        return step == self._session.spec.steps or bool(sweep.every and step % sweep.every == 0)

    def _sweep(self, step: int) -> None:
        sweep = self._settings.sweep
        assert sweep  # noqa: S101 -- for mypy: it is due
        session = self._session
        prompts = self._settings.prompts[: sweep.prompts]
        few = self._settings.model_copy(update={"prompts": prompts, "resolutions": []})
        found: list[tuple[str, Drawn]] = []
        with session.evaluating() as denoiser:
            for run in sweep_runs(sweep):
                with self._as_in(run):
                    found += [(run.label, each) for each in draw_all(denoiser, few)]
        write_previews(self._folder.previews, "sweep", step, found, denoiser.medium)
        if denoiser.medium.kind == "image" and len({each.values.shape for _, each in found}) == 1:
            path = self._folder.sweep(step)
            captions = [f"{label}: {each.prompt.prompt}" for label, each in found]
            pixels = np.stack([each.values for _, each in found])
            title = f"step {step:,}: adapter sweep, seed {few.seed}"
            write_picture(
                path,
                sample_grid(pixels, captions, title=title, columns=len(prompts), scale=few.scale),
            )
            self._journal.sample(step, self._folder.relative(path), [p.prompt for p in prompts])

    def _as_in(self, run: SweepRun) -> AbstractContextManager[None]:
        session = self._session
        if self._adapters is None:
            return session.adapter.at(session.module, run.trained)
        return self._adapters.applied(run, session.adapter, session.module)
