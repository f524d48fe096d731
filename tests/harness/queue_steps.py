"""A scheduler with short names for what tests say."""

from st_controller.domain.scheduling.model import (
    Decision,
    Level,
    PendingJob,
    Placement,
    Policy,
    Preemption,
    Shape,
    Share,
    SlotKind,
    Tenant,
    WorkerCapacity,
)
from st_controller.domain.scheduling.scheduler import Scheduler


class Queue:
    """A scheduler and the time at which things happen to it."""

    def __init__(self, **policy: float) -> None:
        self.scheduler = Scheduler(Policy(**policy))
        self.now = 1_000_000.0
        self._turn = 0

    def worker(
        self,
        name: str = "w",
        slots: int = 1,
        accelerator: str = "cpu",
        memory: float = 8.0,
        *,
        provider: str = "static",
        price: float = 1.0,
        holds: tuple[str, ...] = (),
        busy: dict[int, str] | None = None,
        content_room_gb: float = float("inf"),
        **labels: str,
    ) -> None:
        kind = SlotKind(accelerator, memory)
        self.scheduler.put_worker(
            WorkerCapacity(
                name,
                {index: kind for index in range(slots) if index not in (busy or {})},
                labels,
                provider,
                price,
                frozenset(holds),
                busy={index: (kind, who) for index, who in (busy or {}).items()},
                content_room_gb=content_room_gb,
            ),
            self.now,
        )

    def submit(
        self,
        name: str,
        user: str = "org/team/user",
        level: Level = Level.NORMAL,
        *,
        waited: float = 0.0,
        not_before: float = 0.0,
        wants: tuple[str, ...] = (),
        array: str | None = None,
        preemptible: bool = True,
        preemptions: int = 0,
        expected: float | None = None,
        **shape: object,
    ) -> PendingJob:
        """Queue a job; later calls have later turns."""
        self._turn += 1
        since = self.now - waited + self._turn * 1e-6
        job = PendingJob(
            id=name,
            tenant=Tenant(*user.split("/")),
            level=level,
            submitted=since,
            waiting_since=since,
            shape=Shape(**shape),  # type: ignore[arg-type]
            not_before=not_before,
            wants=wants,
            array=array,
            preemptible=preemptible,
            preemptions=preemptions,
            expected=expected,
        )
        self.scheduler.enqueue(job, self.now)
        return job

    def share(self, path: str, weight: float = 1.0, **limits: int) -> None:
        self.scheduler.set_share(path, Share(weight, **limits))

    def decide(self) -> list[Decision]:
        return self.scheduler.decide(self.now)

    def placed(self) -> list[str]:
        """Ids of the jobs that are placed now, in order."""
        return [found.job_id for found in self.decide() if isinstance(found, Placement)]

    def where(self) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
        """Job -> worker and slots of each node, for what is placed now."""
        return {
            found.job_id: [(grant.worker, grant.slots) for grant in found.grants]
            for found in self.decide()
            if isinstance(found, Placement)
        }

    def preempted(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(p.job_id, p.victims) for p in self.decide() if isinstance(p, Preemption)]

    def finish(self, *names: str, after: float = 0.0) -> None:
        self.now += after
        for name in names:
            self.scheduler.finish(name, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
