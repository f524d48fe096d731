"""A run carried out in this process, and what it left."""

from pathlib import Path

from accelerate.state import AcceleratorState, GradientState, PartialState

from st_trainer.checkpoint import complete_checkpoints, verify_checkpoint
from st_trainer.journal import Journal
from st_trainer.run import run_training
from st_trainer.run_folder import RunFolder


def carry_out(spec, root, stop_after=None, resume="none"):
    """Train ``spec`` below ``root``; told to stop when that was asked ``stop_after`` times."""
    folder = RunFolder(Path(root))
    folder.create()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # a new process would not have them
    asked = iter(range(10_000))
    with Journal(folder.journal) as journal:
        return run_training(
            spec,
            [Path(dataset.path) for dataset in spec.datasets],
            folder,
            journal,
            resume=resume,
            stop=lambda: stop_after is not None and next(asked) >= stop_after,
        )


def final_state(root):
    """Checksums of the files of its newest checkpoint, by path."""
    newest = complete_checkpoints(RunFolder(Path(root)).checkpoints)[0]
    return {file.path: file.sha256 for file in verify_checkpoint(newest).files}
