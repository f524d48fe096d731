"""What a run leaves behind: samples, the loss curve and the weights."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from st_shared.durable import move_durably
from st_shared.spec.training import TrainingSpec, ValidationSpec
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.pictures.grid import sample_grid
from st_trainer.pictures.loss_curve import loss_curve
from st_trainer.recordings import write_sound, write_video
from st_trainer.run_folder import RunFolder
from st_trainer.sampling import draw, guidance_of
from st_trainer.session import Session


def draw_samples(session: Session, folder: RunFolder, journal: Journal) -> None:
    """Draw the prompts of the specification with the present model, where there are any."""
    spec, step = session.spec, session.step
    if not spec.validation.prompts:
        return
    journal.progress("validating", step, spec.steps)
    with session.evaluating() as denoiser:
        if not _draws_pictures(denoiser):
            write_recordings(denoiser, spec, folder, journal, step)
            return
        grid = prompt_grid(denoiser, session.drawn, f"step {step:,} of {spec.steps:,}")
    path = folder.sample(step)
    write_picture(path, grid)
    journal.sample(step, folder.relative(path), spec.validation.prompts)


def write_results(session: Session, folder: RunFolder, journal: Journal) -> None:
    """Write weights, loss curve and the last samples, and tell of each."""
    spec = session.spec
    with session.evaluating() as denoiser, session.strategy.assembled(session.adapter):
        if session.ranks.is_first:
            weights = session.adapter.write(folder.output, denoiser, session.step)
            for path in beside(weights, folder):
                journal.output("file", folder.relative(path))
            journal.output("weights", folder.relative(weights))
    write_picture(folder.loss_curve, loss_curve(session.history.points, spec.steps))
    journal.output("loss_curve", folder.relative(folder.loss_curve))
    if not spec.validation.prompts:
        return
    drawn = sample_paths(session.denoiser, spec, folder, spec.steps)
    if session.agree(not all(path.exists() for path in drawn)):
        draw_samples(session, folder, journal)  # resumed at the last step, into a new run folder
    if _draws_pictures(session.denoiser):
        with Image.open(folder.sample(session.step)) as picture:
            write_picture(folder.sample_grid, picture)
        journal.output("sample_grid", folder.relative(folder.sample_grid))


def beside(weights: Path, folder: RunFolder) -> list[Path]:
    """What belongs to ``weights`` where they lie in a folder of their own, such as its options."""
    if weights.parent == folder.output:
        return []
    return [path for path in sorted(weights.parent.iterdir()) if path != weights]


def draw_with_base(
    denoiser: Denoiser, spec: TrainingSpec, folder: RunFolder, journal: Journal
) -> None:
    """Draw the prompts of the specification with a model that was not trained."""
    if not _draws_pictures(denoiser):
        write_recordings(denoiser, spec, folder, journal, 0)
        return
    grid = prompt_grid(denoiser, spec.validation, Path(str(spec.model.base)).name)
    write_picture(folder.sample_grid, grid)
    journal.output("sample_grid", folder.relative(folder.sample_grid))


def sample_paths(
    denoiser: Denoiser, spec: TrainingSpec, folder: RunFolder, step: int
) -> Iterator[Path]:
    """Where the samples of ``step`` lie: one grid of pictures, or a file a prompt."""
    if _draws_pictures(denoiser):
        yield folder.sample(step)
        return
    suffix = ".mp4" if isinstance(denoiser.medium, Videos) else ".wav"
    for prompt in range(len(spec.validation.prompts)):
        yield folder.sample_of(step, prompt, suffix)


def write_recordings(
    denoiser: Denoiser, spec: TrainingSpec, folder: RunFolder, journal: Journal, step: int
) -> None:
    """Draw each prompt of ``spec`` as a video or a sound, and tell of each."""
    prompts, medium = spec.validation.prompts, denoiser.medium
    drawn = draw(denoiser, prompts, spec.validation).numpy()
    paths = sample_paths(denoiser, spec, folder, step)
    for path, prompt, values in zip(paths, prompts, drawn, strict=True):
        if isinstance(medium, Videos):
            write_video(path, values, medium.rate)
        elif isinstance(medium, Sounds):
            write_sound(path, values, medium.rate)
        journal.sample(step, folder.relative(path), [prompt])


def prompt_grid(denoiser: Denoiser, settings: ValidationSpec, title: str) -> Image.Image:
    """The prompts of ``settings`` drawn with ``denoiser``, with a line that says how."""
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


def _draws_pictures(denoiser: Denoiser) -> bool:
    return denoiser.medium.kind == "image"
