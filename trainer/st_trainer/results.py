"""What a run leaves behind: the loss curve, the weights, the last samples."""

from pathlib import Path

from PIL import Image

from st_shared.spec.training import TrainingSpec
from st_shared.spec.validation import ValidationSpec
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.pictures.loss_curve import loss_curve
from st_trainer.run_folder import RunFolder
from st_trainer.session import Session
from st_trainer.validation.samples import (
    draw_all,
    grid_of,
    tell_samples,
    write_picture,
    write_samples,
)


def write_results(session: Session, folder: RunFolder, journal: Journal) -> None:
    """Write weights and loss curve, and tell of each and of the last samples."""
    spec = session.spec
    with session.evaluating() as denoiser, session.strategy.assembled(session.adapter):
        if session.ranks.is_first:
            weights = session.adapter.write(folder.output, denoiser, session.step)
            for path in beside(weights, folder):
                journal.output("file", folder.relative(path))
            journal.output("weights", folder.relative(weights))
    write_picture(folder.loss_curve, loss_curve(session.history.points, spec.steps))
    journal.output("loss_curve", folder.relative(folder.loss_curve))
    grid = _last_grid(folder, session.step)
    if grid:
        with Image.open(grid) as picture:
            write_picture(folder.sample_grid, picture)
        journal.output("sample_grid", folder.relative(folder.sample_grid))


def _last_grid(folder: RunFolder, step: int) -> Path | None:
    """The grid of ``step``, of the model's own size if there is one; none of videos and sounds."""
    own = folder.sample(step)
    sized = sorted(folder.samples.glob(f"{own.stem}-*x*.png"))
    return next((path for path in [own, *sized] if path.is_file()), None)


def beside(weights: Path, folder: RunFolder) -> list[Path]:
    """What belongs to ``weights`` where they lie in a folder of their own, such as its options."""
    if weights.parent == folder.output:
        return []
    return [path for path in sorted(weights.parent.iterdir()) if path != weights]


def draw_with_base(
    denoiser: Denoiser,
    spec: TrainingSpec,
    settings: ValidationSpec,
    folder: RunFolder,
    journal: Journal,
) -> None:
    """Draw the prompts of ``settings`` with a model that was not trained."""
    drawn, title = draw_all(denoiser, settings), Path(str(spec.model.base)).name
    if denoiser.medium.kind == "image" and len({each.size for each in drawn}) == 1:
        write_picture(folder.sample_grid, grid_of(drawn, denoiser, settings, title))
        journal.output("sample_grid", folder.relative(folder.sample_grid))
        return
    written = write_samples(drawn, denoiser, settings, folder, 0, title)
    tell_samples(written, folder, journal, 0)
