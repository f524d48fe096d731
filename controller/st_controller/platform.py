"""The parts that a running controller consists of, made once and handed to whoever needs them."""

from dataclasses import dataclass, field
from functools import cached_property

from st_controller.auth.vault import Vault
from st_controller.domain.workers import Patience
from st_controller.events.feed import EventFeed
from st_controller.events.hub import Hub
from st_controller.events.standing import Standing
from st_controller.events.worker_streams import WorkerStreams
from st_controller.secret_key import open_vault
from st_controller.services.caller import Caller, WorkerCaller
from st_controller.services.joint_claims import JointClaims
from st_controller.services.joint_finishes import JointFinishes
from st_controller.services.joint_heartbeats import JointHeartbeats
from st_controller.services.joint_journal import JointJournal
from st_controller.services.joint_submission import JointSubmission
from st_controller.services.journal_reading import JournalReader
from st_controller.services.known_credentials import BELIEVED_OF_WORKERS, KnownCredentials
from st_controller.services.live_queue import LiveQueue
from st_controller.services.survey import Survey
from st_controller.services.verifications import Verifications
from st_controller.settings import Settings
from st_controller.store.database import Database
from st_controller.telemetry import Telemetry
from st_shared.objectstore import ObjectStore


@dataclass(frozen=True)
class Platform:
    """Settings, database, event hub and object store of this process, and what it counts."""

    settings: Settings
    db: Database
    hub: Hub
    objects: ObjectStore
    patience: Patience
    queue: LiveQueue = field(default_factory=LiveQueue)
    telemetry: Telemetry = field(default_factory=Telemetry)
    feed: EventFeed = field(default_factory=EventFeed)
    callers: KnownCredentials[Caller] = field(default_factory=KnownCredentials)
    workers: KnownCredentials[WorkerCaller] = field(
        default_factory=lambda: KnownCredentials(BELIEVED_OF_WORKERS)
    )
    survey: Survey = field(default_factory=Survey)
    verifications: Verifications = field(default_factory=Verifications)

    @cached_property
    def standing(self) -> Standing:
        """Which workers' streams may go on."""
        return Standing(self.db, self.hub, self.streams)

    @cached_property
    def streams(self) -> WorkerStreams:
        """The streams that workers hold."""
        return WorkerStreams(self.hub, self.feed, self.telemetry.streams)

    @cached_property
    def submissions(self) -> JointSubmission:
        """Where single jobs are taken in."""
        return JointSubmission(self.db)

    @cached_property
    def vault(self) -> Vault:
        """What seals stored secrets."""
        return open_vault(self.settings)

    @cached_property
    def claims(self) -> JointClaims:
        """Where workers take up what they were offered."""
        return JointClaims(self.db, self.objects, self.patience)

    @cached_property
    def finishes(self) -> JointFinishes:
        """Where workers tell of attempts that are over."""
        return JointFinishes(self.db)

    @cached_property
    def heartbeats(self) -> JointHeartbeats:
        """Where workers say that they are alive."""
        return JointHeartbeats(self.db, self.patience, self.workers)

    @cached_property
    def journals(self) -> JointJournal:
        """Where journal lines are taken in."""
        return JointJournal(self.db)

    @cached_property
    def lines(self) -> JournalReader:
        """Where journal lines are read, wherever they lie."""
        return JournalReader(self.db, self.objects)
