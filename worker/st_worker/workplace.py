"""What all attempts of an agent share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from st_shared.clock import Clock, utc_now
from st_shared.protocol.worker import Inventory
from st_worker.client import Controller
from st_worker.datasets import DatasetCache
from st_worker.model_caches import ModelCaches
from st_worker.room import Room
from st_worker.settings import AgentSettings
from st_worker.slots import Slots
from st_worker.trainer_cache import TrainerCache
from st_worker.transfer import Transfer


@dataclass(frozen=True)
class Workplace:
    """The parts that an attempt is run with."""

    controller: Controller
    transfer: Transfer
    cache: DatasetCache
    models: ModelCaches
    slots: Slots
    inventory: Inventory
    room: Room
    settings: AgentSettings
    trainer_cache: TrainerCache
    clock: Clock = utc_now
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
