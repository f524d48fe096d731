"""The strategy that a specification asks for."""

from st_shared.spec.distributed import DistributedSpec
from st_trainer.strategies.replicated import Replicated
from st_trainer.strategies.strategy import Strategy


def strategy_of(asked: DistributedSpec) -> type[Strategy]:
    """Its class; the modules of others are not loaded."""
    match asked.strategy:
        case "fsdp2":
            from st_trainer.strategies.fully_sharded import FullySharded  # noqa: PLC0415

            return FullySharded
        case "deepspeed":
            from st_trainer.strategies.zero import ZeroReplicated, ZeroSharded  # noqa: PLC0415

            return ZeroSharded if asked.zero_stage == 3 else ZeroReplicated
        case _:
            return Replicated
