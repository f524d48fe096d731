import pytest
from PIL import Image


@pytest.fixture
def some_events(trainer_journal, run_folder):
    """Writes three losses, a sample, and a metric of an earlier step."""

    def write():
        for step in range(3):
            trainer_journal.metric(step, {"loss": 1 / (step + 1)})
        Image.new("RGB", (20, 10), (255, 0, 0)).save(run_folder.sample(2))
        trainer_journal.sample(2, run_folder.relative(run_folder.sample(2)), ["a"])
        trainer_journal.metric(1, {"post_checkpoint.score": 4.0})  # of a hook that ended late

    return write
