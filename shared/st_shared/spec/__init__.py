"""What people write down: job files and training specifications (YAML in, JSON Schema out)."""

from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.digest import spec_sha256
from st_shared.spec.families import FAMILIES, Family, ModelSpec, PixelDitConfig
from st_shared.spec.job import JobSpec, Priority, ResourceRequest, RetryPolicy
from st_shared.spec.reading import SpecProblem, SpecProblems, read_job_file, validate_job
from st_shared.spec.training import (
    CheckpointSpec,
    EmaSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
)

__all__ = [
    "FAMILIES",
    "CheckpointSpec",
    "DatasetSpec",
    "EmaSpec",
    "Family",
    "JobSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "OptimizerSpec",
    "PixelDitConfig",
    "Priority",
    "ResourceRequest",
    "RetryPolicy",
    "ScheduleSpec",
    "SpecProblem",
    "SpecProblems",
    "TrainingSpec",
    "ValidationSpec",
    "read_job_file",
    "spec_sha256",
    "validate_job",
]
