"""One of the processes of ``shared_plan.py``: two steps, then the bytes that it holds of each part.

``torchrun ... shared_plan_worker.py FOLDER``: with ``case.json``, where ``rank-N.json`` is written.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from memory_plan import held
from tiny_sdxl import PIXELS

from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.loop import step
from st_trainer.ranks import join
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

PARTS = ("base", "adapter", "optimizer", "average")


def specification(root: Path, case: dict[str, Any]) -> TrainingSpec:
    """Two samples a process; encoders stay, which no strategy shares."""
    model = {
        "family": "sdxl", "base": str(root / "model"), "config": {"resolution": PIXELS},
    }  # fmt: skip
    return TrainingSpec.model_validate(
        {
            "model": model,
            "datasets": [{"path": str(root / "pictures")}],
            "batch_size": 2,
            "adapter": {"kind": case["kind"]},
            "cache": {"latents": "off", "text": "off"},
            "distributed": case["distributed"],
        }
    )


def session_of(spec: TrainingSpec) -> Session:
    """A session after two steps: the first makes states, the second gathers what it kept."""
    join(spec.distributed)
    folder = Path(str(spec.datasets[0].path))
    samples = read_datasets(spec.datasets, [folder], Images(3, PIXELS, PIXELS)).samples
    session = Session(spec, samples, open_denoiser(spec, list))
    for _ in range(2):
        step(session, session.sampler.take(session.batch_size), 1e-4)
    return session


def measured(session: Session) -> dict[str, int]:
    """Bytes of the storages of each part, as far as they lie here; each once."""
    session.strategy.settle()
    learned = {id(each) for each in trained(session.module).values()}
    parameters = [*session.module.parameters()]
    own = [each for each in parameters if id(each) in learned]
    frozen = [each for each in parameters if id(each) not in learned]
    zero = getattr(session.strategy, "_zero", None)
    inner = zero.optimizer if zero else session.optimizer.optimizer
    masters = getattr(zero, "single_partition_of_fp32_groups", [])
    (average,) = [each.average for each in session.techniques if each.name == "ema"]
    return {
        "base": held([*map(_here, frozen), *session.module.buffers()]),
        "adapter": held([_here(each) for each in own]),
        "optimizer": held([*masters, *inner.state.values()], least=2),
        "average": held(average),
    }


def _here(parameter: torch.Tensor) -> torch.Tensor:
    """What lies here of a weight that ZeRO 3 has cut; else ``parameter``."""
    return getattr(parameter, "ds_tensor", parameter)


def main() -> None:
    """Train, measure, write."""
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    session = session_of(specification(root, json.loads((root / "case.json").read_text())))
    assert session.accelerator.num_processes == int(os.environ["WORLD_SIZE"])
    found = measured(session)
    (root / f"rank-{session.ranks.rank}.json").write_text(json.dumps(found))
    session.accelerator.end_training()


if __name__ == "__main__":
    main()
