"""Trains several specifications one after the other in the processes that torchrun has started.

``distributed_cases.py FILE``: a JSON list of cases, each with ``spec``, ``root`` and ``resume``.
Libraries are imported once for all of them. ``"linear": "deepspeed"`` makes one process round as
DeepSpeed's ZeRO-3 does: see ``_round_as_deepspeed``.
"""

import gc
import json
import os
import sys
import traceback
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.nn import functional

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import TrainerError
from st_trainer.journal import Journal, SilentJournal
from st_trainer.run import run_training
from st_trainer.run_folder import RunFolder
from st_trainer.strategies.replicated import Replicated
from st_trainer.strategies.strategy import Prepared
from st_trainer.strategies.zero import load_deepspeed

_LINEAR, _PREPARE = functional.linear, Replicated.prepare
_OF_ACCELERATE = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION")


def carry_out(case: dict) -> int:
    """Train one case; gives its exit code."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # noqa: SLF001 -- as if the process were new
    for name in _OF_ACCELERATE:
        os.environ.pop(name, None)
    functional.linear, Replicated.prepare = _LINEAR, _PREPARE  # ZeRO-3 leaves its own in place
    if case.get("linear") == "deepspeed":
        _round_as_deepspeed()
    spec, folder = TrainingSpec.model_validate(case["spec"]), RunFolder(Path(case["root"]))
    folder.create()
    stop_after = case.get("stop_after")
    asked = iter(range(1_000_000))
    sources = [Path(dataset.path) for dataset in spec.datasets]
    is_first = int(os.environ.get("RANK", "0")) == 0
    with Journal(folder.journal) if is_first else SilentJournal() as journal:
        return run_training(
            spec,
            sources,
            folder,
            journal,
            resume=case.get("resume", "none"),
            stop=lambda: stop_after is not None and next(asked) >= stop_after,
        )


def _round_as_deepspeed() -> None:
    """Compute linear layers with the function that ZeRO-3 puts in torch's place.

    It rounds the product before it adds the bias, where torch adds first: in bfloat16 that is
    another number. Text encoders and VAE have done their work before, as with ZeRO-3.
    """
    load_deepspeed()
    from deepspeed.runtime.zero.linear import zero3_linear_wrap  # noqa: PLC0415 -- an extra

    def prepare(self: Replicated, *given: Any) -> Prepared:
        functional.linear = zero3_linear_wrap
        return _PREPARE(self, *given)

    Replicated.prepare = prepare  # type: ignore[method-assign]


def main() -> None:
    torch.set_num_threads(1)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        started = monotonic()
        try:
            code = carry_out(case)
        except TrainerError as error:
            code = error.exit_code
            print(f"{case['root']}: {error}", file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 -- the other process waits: end it all
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        if int(os.environ.get("RANK", "0")) == 0:
            note = {"code": code, "seconds": monotonic() - started}
            (Path(case["root"]) / case["note"]).write_text(json.dumps(note))
            print(f"{Path(case['root']).name}: {note}", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
