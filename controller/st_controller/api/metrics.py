"""Figures for Prometheus."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from st_controller.api.dependencies import PlatformDep, metrics_reader
from st_controller.services.metrics import (
    attempts_by_outcome,
    faulty_slots,
    jobs_by_state,
    workers_by_state,
)
from st_controller.store.database import Database

router = APIRouter(tags=["health"])


class SqlFigures(Collector):
    """Asks SQL at every scrape; registered beside the counters of the process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def describe(self) -> list[Metric]:
        """Nothing: naming the figures must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs and workers by state, attempts by outcome."""
        with self._db.read() as session:
            jobs, workers = jobs_by_state(session), workers_by_state(session)
            attempts, faulty = attempts_by_outcome(session), faulty_slots(session)
        yield _gauge("st_jobs", "Jobs by state.", "state", jobs)
        yield _gauge("st_workers", "Workers by observed state.", "state", workers)
        said = (
            "Slots of live workers that are offered no more, because they failed again and again."
        )
        yield GaugeMetricFamily("st_slots_faulty", said, value=faulty)
        yield _gauge("st_attempts", "Attempts that ended, by outcome.", "outcome", attempts)


@router.get("/metrics", response_class=Response)
def metrics(platform: PlatformDep, _reader: Annotated[None, metrics_reader()]) -> Response:
    """All figures of this process, and those that SQL knows of all."""
    return Response(
        generate_latest(platform.telemetry.registry),
        media_type=None,
        headers={"Content-Type": CONTENT_TYPE_LATEST},
    )


def _gauge(name: str, said: str, label: str, figures: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, said, labels=[label])
    for value, count in figures.items():
        family.add_metric([value], count)
    return family
