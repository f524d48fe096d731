"""What processes that share a model send each other in one optimiser step, and to their hosts."""

from collections.abc import Sequence
from dataclasses import dataclass

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.sharing import SINGLE, Weight


@dataclass(frozen=True)
class Traffic:
    """Bytes of one process in one step."""

    exchanged: int
    """Sent to other processes."""
    transferred: int
    """Between its accelerator and the host's memory, both ways."""


def of_step(spec: TrainingSpec, weights: Sequence[Weight], processes: int) -> Traffic:
    """What the strategy of ``spec`` sends, in the rings that NCCL uses; tokens are not counted.

    To add up, or to gather, ``n`` bytes costs each of ``N`` processes ``n (N - 1) / N``; to give
    the sum to all costs both; Rajbhandari et al. 2020, section 7.
    """
    asked, batches = spec.distributed, spec.accumulation
    learned = sum(each.numbers for each in weights if each.is_trained) * SINGLE
    match asked.strategy:
        case "fsdp2":
            width = 2 if spec.precision == "bf16" else None
            whole = sum(each.numbers * (width or each.width) for each in weights)
            gathers = (2 if asked.reshard_after_forward else 1) * batches
            sent = gathers * whole + learned
            part = sum(each.size for each in weights) // processes
            moved = gathers * part + learned // processes
            offloads = asked.offload_parameters == "cpu"
        case "deepspeed" if asked.zero_stage == 3:
            whole = sum(each.size for each in weights)
            sent = batches * (2 * whole + learned)
            moved = 2 * learned // processes
            if asked.offload_parameters == "cpu":
                moved += 2 * batches * whole // processes
            offloads = asked.offload_optimizer == "cpu"
        case "deepspeed":
            sent = learned + (batches if asked.zero_stage == 2 else 1) * learned
            moved, offloads = 2 * learned // processes, asked.offload_optimizer == "cpu"
        case _:
            sent, moved, offloads = 2 * learned, 3 * learned, spec.optimizer.offload
    return Traffic(sent * (processes - 1) // processes, moved if offloads else 0)
