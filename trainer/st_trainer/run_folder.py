"""Where the files of a run lie."""

from dataclasses import dataclass
from pathlib import Path

from st_shared.protocol.journal import JOURNAL_NAME
from st_trainer.errors import TrainerError, expected_error


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run and the names inside it."""

    root: Path

    def create(self) -> None:
        """Make the folder and the folders in it; fine when they exist.

        Raises:
            TrainerError: this user may not, or something else stands there.
            OSError: the disk is full.
        """
        try:
            for folder in (self.checkpoints, self.samples, self.output):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if expected_error(error):
                raise
            raise TrainerError(
                f"cannot make the run folder {self.root}: {error.strerror}; give another --run-dir"
            ) from error

    @property
    def journal(self) -> Path:
        """The events of the run, in NDJSON."""
        return self.root / JOURNAL_NAME

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint, such as ``step-000200``."""
        return self.root / "checkpoints"

    def fetched(self, rank: int) -> Path:
        """Where a checkpoint from elsewhere lies until this rank has restored it."""
        return self.root / "fetched" / f"{rank}"

    @property
    def cache(self) -> Path:
        """What encoders made of samples and captions, unless runs share a folder for that."""
        return self.root / "cache"

    @property
    def index(self) -> Path:
        """What is known of each sample of the datasets."""
        return self.root / "index"

    @property
    def samples(self) -> Path:
        """Samples drawn while training."""
        return self.root / "samples"

    @property
    def output(self) -> Path:
        """The final result."""
        return self.root / "output"

    @property
    def weights(self) -> Path:
        """The result: weights that load by themselves."""
        return self.output / "weights.safetensors"

    @property
    def loss_curve(self) -> Path:
        """Loss over steps, drawn."""
        return self.output / "loss_curve.png"

    @property
    def sample_grid(self) -> Path:
        """The last sample grid."""
        return self.output / "sample_grid.png"

    def sample(self, step: int, size: tuple[int, int] | None = None) -> Path:
        """The sample grid of ``step``; of that height and width where not the model's own."""
        return self.samples / f"{step_name(step)}{_sized(size)}.png"

    def sample_of(
        self, step: int, prompt: int, suffix: str, size: tuple[int, int] | None = None
    ) -> Path:
        """The video or sound of the prompt of that number, drawn at ``step``."""
        return self.samples / f"{step_name(step)}{_sized(size)}-{prompt:03d}{suffix}"

    def sweep(self, step: int) -> Path:
        """The adapter sweep of ``step``, where it is of pictures."""
        return self.samples / f"{step_name(step)}-sweep.png"

    @property
    def previews(self) -> Path:
        """Small copies of samples, for the report."""
        return self.root / "previews"

    def judged(self, step: int) -> Path:
        """Samples one by one, while a script judges them."""
        return self.root / "judged" / step_name(step)

    def held(self, name: str) -> Path:
        """Files that something beside the training still needs, such as a checkpoint."""
        return self.root / "held" / name

    @property
    def trackers(self) -> Path:
        """Files of trackers that write to this machine."""
        return self.root / "trackers"

    @property
    def report(self) -> Path:
        """The report of the run, one file."""
        return self.output / "report.html"

    def relative(self, path: Path) -> str:
        """``path`` below the run folder, with forward slashes, as events carry it."""
        return path.relative_to(self.root).as_posix()


def _sized(size: tuple[int, int] | None) -> str:
    return f"-{size[1]}x{size[0]}" if size else ""


def step_name(step: int) -> str:
    """``step-000200`` for 200: sorts by step up to a million."""
    return f"step-{step:06d}"
