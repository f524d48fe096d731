"""The schema: every table, with what a row promises."""

from st_controller.store.schema.approvals import Approval, ApprovalDecision, ApprovalRule
from st_controller.store.schema.attempts import Attempt
from st_controller.store.schema.base import DEFAULT_TENANT, Table
from st_controller.store.schema.contents import Artifact, ArtifactUpload, Dataset, DoomedObject
from st_controller.store.schema.events import (
    AuditArchive,
    AuditEntry,
    AuditHead,
    CrashMark,
    EventOrder,
    OutboxEvent,
)
from st_controller.store.schema.jobs import (
    IdempotencyKey,
    Job,
    JobArray,
    JobDependency,
    JobTransition,
)
from st_controller.store.schema.journal import JournalChunk, JournalSegment
from st_controller.store.schema.people import ApiKey, Session, SetupToken, User
from st_controller.store.schema.policy import PolicyVersion, ResourceRule
from st_controller.store.schema.queue import LeaderLease, QueuePolicy, ShareNode, TenantUsage
from st_controller.store.schema.quotas import Charge, PriceRow, QuotaCounter, QuotaRow
from st_controller.store.schema.sign_in import RecoveryCode, ResetToken, SecondFactor
from st_controller.store.schema.tenancy import (
    CustomRole,
    Membership,
    Organisation,
    SavedConfig,
    Team,
    UserGrant,
)
from st_controller.store.schema.vault import StoredSecret
from st_controller.store.schema.workers import GarbageOrderOfAll, JoinToken, SlotFault, Worker

__all__ = [
    "DEFAULT_TENANT",
    "ApiKey",
    "Approval",
    "ApprovalDecision",
    "ApprovalRule",
    "Artifact",
    "ArtifactUpload",
    "Attempt",
    "AuditArchive",
    "AuditEntry",
    "AuditHead",
    "Charge",
    "CrashMark",
    "CustomRole",
    "Dataset",
    "DoomedObject",
    "EventOrder",
    "GarbageOrderOfAll",
    "IdempotencyKey",
    "Job",
    "JobArray",
    "JobDependency",
    "JobTransition",
    "JoinToken",
    "JournalChunk",
    "JournalSegment",
    "LeaderLease",
    "Membership",
    "Organisation",
    "OutboxEvent",
    "PolicyVersion",
    "PriceRow",
    "QueuePolicy",
    "QuotaCounter",
    "QuotaRow",
    "RecoveryCode",
    "ResetToken",
    "ResourceRule",
    "SavedConfig",
    "SecondFactor",
    "Session",
    "SetupToken",
    "ShareNode",
    "SlotFault",
    "StoredSecret",
    "Table",
    "Team",
    "TenantUsage",
    "User",
    "UserGrant",
    "Worker",
]
