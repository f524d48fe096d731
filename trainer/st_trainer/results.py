"""What a run leaves behind: sample grids, the loss curve and the weights."""

from pathlib import Path

from PIL import Image

from st_shared.durable import move_durably
from st_shared.spec.training import TrainingSpec
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.pictures.grid import sample_grid
from st_trainer.pictures.loss_curve import loss_curve
from st_trainer.run_folder import RunFolder
from st_trainer.sampling import draw, guidance_of
from st_trainer.session import Session


def draw_samples(session: Session, folder: RunFolder, journal: Journal) -> None:
    """Draw the prompts of the specification with the present model, where there are any."""
    spec, step = session.spec, session.step
    if not spec.validation.prompts:
        return
    journal.progress("validating", step, spec.steps)
    path = folder.sample(step)
    with session.evaluating() as denoiser:
        write_picture(path, prompt_grid(denoiser, spec, f"step {step:,} of {spec.steps:,}"))
    journal.sample(step, folder.relative(path), spec.validation.prompts)


def write_results(session: Session, folder: RunFolder, journal: Journal) -> None:
    """Write weights, loss curve and the final sample grid, and tell of each."""
    spec = session.spec
    with session.evaluating() as denoiser:
        weights = session.adapter.write(folder.output, denoiser, session.step)
    journal.output("weights", folder.relative(weights))
    write_picture(folder.loss_curve, loss_curve(session.history.points, spec.steps))
    journal.output("loss_curve", folder.relative(folder.loss_curve))
    if spec.validation.prompts:
        last = folder.sample(session.step)
        if not last.exists():  # resumed at the last step, into a new run folder
            draw_samples(session, folder, journal)
        with Image.open(last) as picture:
            write_picture(folder.sample_grid, picture)
        journal.output("sample_grid", folder.relative(folder.sample_grid))


def prompt_grid(denoiser: Denoiser, spec: TrainingSpec, title: str) -> Image.Image:
    """The prompts of ``spec`` drawn with ``denoiser``, with a line that says how."""
    settings = spec.validation
    images = draw(denoiser, settings.prompts, settings)
    how = f"{settings.sampler_steps} Euler steps, guidance {guidance_of(denoiser, settings):g}"
    return sample_grid(
        images.numpy(),
        settings.prompts,
        title=f"{title}  ·  {how}, seed {settings.seed}",
        columns=settings.columns,
        scale=settings.scale,
    )


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG at ``path``, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    picture.save(aside, format="PNG", optimize=True)
    move_durably(aside, path)
